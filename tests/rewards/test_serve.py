"""Rewards over HTTP: a real server on loopback and its client, against the same local rewards."""

from __future__ import annotations

import ast
import base64
import http.client
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from ddpo.errors import ConfigError, DdpoError, NewerApiError, RewardFailure, RewardUnavailable
from ddpo.rewards.check.run import iter_results
from ddpo.rewards.scoring.scorer import make_scorer
from ddpo.rewards.serve.app import bind, check_token, make_app, make_server
from ddpo.rewards.serve.client import RemoteReward
from ddpo.rewards.serve.gather import MOST_WAITING, Gatherer
from ddpo.rewards.serve.wire import Limits, Refused, decode_batch, encode_batch
from ddpo.rewards.spec import parse_expression, parse_spec
from ddpo.rewards.zoo import resolve
from ddpo.types import Context, ImageBatch, Prompt, RewardOutput
from tests.warm_start import start_ddpo

Run = Callable[..., tuple[int, str, str]]

OWN = """
import time
import torch
from ddpo.rewards.card import RewardCard
from ddpo.types import RewardOutput


class Words:
    card = RewardCard(
        id="words", version="1", summary="length of the prompt over red", load="x:Words",
        family="test", flaws="-", inputs=("image", "prompt", "metadata", "context"),
        dtype="float32",
    )

    def __call__(self, batch):
        texts = [prompt.text for prompt in batch.prompts]
        if "boom" in texts:
            raise ValueError("the reward\\ntripped")
        time.sleep(0.05)
        red = torch.tensor([float(image[..., 0].mean()) for image in batch.uint8])
        extras = [prompt.metadata.get("extra", 0) for prompt in batch.prompts]
        length = torch.tensor([len(text) / 3 + extra for text, extra in zip(texts, extras)])
        values = (length + red / 7 + (batch.context.progress or 0)).float()
        bad = [text == "unscorable" for text in texts]
        values[torch.tensor(bad)] = torch.nan
        parts = {"red": red, "odd": torch.tensor([float("inf") if one else -0.0 for one in bad])}
        return RewardOutput(values, parts, tuple("no words for it" if one else None for one in bad))
"""


@contextmanager
def serving(
    *specs: str, port: int = 0, connections: int = 256, **options: Any
) -> Iterator[tuple[str, Any]]:
    """The address of a server of `specs`, and its application."""
    app = make_app({reward.card.id: reward for reward in map(resolve, specs)}, **options)
    with bind("127.0.0.1", port) as listening:
        server = make_server(app, connections)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", app
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("own") / "words.py"
    path.write_text(OWN)
    return f"{path}:Words"


@pytest.fixture(scope="module")
def served(words: str) -> Iterator[tuple[str, Any]]:
    with serving("compressibility", "symmetry", words) as found:
        yield found


def byte_images(count: int, seed: int = 0, side: int = 24) -> ImageBatch:
    array = np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    return ImageBatch.of_uint8(array, [Prompt(f"a crab {'é' * place}") for place in range(count)])


def float_images(count: int, seed: int = 0) -> ImageBatch:
    pixels = torch.rand((count, 3, 17, 23), generator=torch.Generator().manual_seed(seed))
    assert not torch.equal(pixels, (pixels * 255).round() / 255)  # off the grid of bytes
    return ImageBatch(pixels, [Prompt("")] * count)


def assert_same_bits(one: RewardOutput, other: RewardOutput) -> None:
    def bits(values: torch.Tensor) -> list[int]:
        return values.view(torch.int32).tolist()

    assert bits(one.values) == bits(other.values)
    assert one.errors == other.errors
    assert {name: bits(part) for name, part in one.parts.items()} == {
        name: bits(part) for name, part in other.parts.items()
    }


@pytest.mark.parametrize("make", [byte_images, float_images])
@pytest.mark.parametrize("name", ["compressibility", "symmetry"])
def test_scores_are_the_local_ones_to_the_bit(
    served: tuple[str, Any], name: str, make: Callable[[int], ImageBatch]
) -> None:
    batch = make(5)
    assert_same_bits(resolve(f"{served[0]}/{name}").make()(batch), resolve(name).make()(batch))


def test_floats_off_the_grid_of_bytes_are_not_rounded_on_the_way(served: tuple[str, Any]) -> None:
    batch = float_images(4)
    rounded = ImageBatch.of_uint8(batch.uint8, batch.prompts)
    remote = RemoteReward(f"{served[0]}/symmetry")
    assert remote(batch).values.tolist() != remote(rounded).values.tolist()


def test_prompts_metadata_context_parts_and_reasons_travel(
    served: tuple[str, Any], words: str
) -> None:
    prompts = [Prompt("a crab"), Prompt("unscorable"), Prompt("naïve 🦀", {"extra": 1 / 3})]
    batch = ImageBatch.of_uint8(byte_images(3).uint8, prompts, Context(progress=0.3))
    local = resolve(words).make()(batch)
    remote = RemoteReward(f"{served[0]}/words")(batch)
    assert_same_bits(remote, local)
    assert remote.errors == (None, "no words for it", None)
    assert remote.parts["odd"].tolist() == [0.0, float("inf"), 0.0]
    without = RemoteReward(f"{served[0]}/words")(ImageBatch.of_uint8(batch.uint8, prompts))
    assert without.values[0] != remote.values[0]  # the progress had a say


def test_an_empty_batch_gives_no_scores(served: tuple[str, Any]) -> None:
    empty = ImageBatch(torch.zeros(0, 3, 8, 8), [])
    assert len(RemoteReward(f"{served[0]}/symmetry")(empty)) == 0


def test_eight_clients_at_once_get_their_own_scores_from_fewer_calls(
    served: tuple[str, Any], words: str
) -> None:
    address, app = served
    gatherer = app.state.service.gatherers["words"]
    before = gatherer.calls
    local = resolve(words).make()
    remote = RemoteReward(f"{address}/words")
    batches = [byte_images(2, seed) for seed in range(40)]
    with ThreadPoolExecutor(8) as pool:
        outputs = list(pool.map(remote, batches))
    for batch, output in zip(batches, outputs, strict=True):
        assert_same_bits(output, local(batch))
    assert gatherer.calls - before < 30  # of 40 requests


def test_images_of_another_size_are_not_put_together(served: tuple[str, Any]) -> None:
    remote = RemoteReward(f"{served[0]}/words")
    local = RemoteReward(f"{served[0]}/compressibility")
    batches = [byte_images(1, seed, side=8 + seed) for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        assert all(len(output) == 1 for output in pool.map(remote, batches))
        assert (
            len(set(torch.cat([output.values for output in pool.map(local, batches)]).tolist())) > 1
        )


def test_one_clients_failure_does_not_touch_the_others(served: tuple[str, Any]) -> None:
    remote = RemoteReward(f"{served[0]}/words")
    image = byte_images(1).uint8

    def ask(text: str) -> RewardOutput | DdpoError:
        try:
            return remote(ImageBatch.of_uint8(image, [Prompt(text)]))
        except DdpoError as error:
            return error

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ask, ["fine", "boom"] * 8))
    assert all(isinstance(one, RewardOutput) for one in found[::2])
    assert all(
        isinstance(one, RewardFailure) and not isinstance(one, RewardUnavailable)
        for one in found[1::2]
    )
    assert (
        "answered 422: reward 'words' failed: words.py:18: ValueError: the reward tripped"
        in str(found[1])
    )


def test_the_signature_holds_the_servers_and_no_token(served: tuple[str, Any]) -> None:
    found = resolve(f"{served[0]}/compressibility", token="secret-token")
    inner = resolve("compressibility").signature
    assert " ".join(inner.replace("|", "/").split()) in found.signature
    assert " ".join(inner.replace("|", "/").split()) in found.identity
    assert found.signature != inner
    assert "secret-token" not in found.signature + found.identity
    assert found.card.id == "compressibility"
    assert (found.card.thread_safe, found.card.calls.concurrency, found.card.calls.retries) == (
        True,
        8,
        3,
    )


def post(
    address: str, path: str, body: bytes | Iterator[bytes], **headers: str
) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=20)
    connection.request(
        "POST",
        path,
        body,
        {"Content-Type": "application/json", **headers},
        encode_chunked=not isinstance(body, bytes),
    )
    answer = connection.getresponse()
    found = answer.status, json.loads(answer.read())
    connection.close()
    return found


def request(**changes: Any) -> bytes:
    whole = json.loads(encode_batch(byte_images(2), resolve("compressibility").card))
    return json.dumps({**whole, **changes}).encode()


def make_image(mode: str, kind: str = "PNG") -> str:
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.new(mode, (4, 4)).save(file, kind)
    return base64.b64encode(file.getvalue()).decode()


MALFORMED = {
    "not JSON": b"\x80\x04}",
    "not UTF-8": b'"\xff"',
    "a list": b"[]",
    "too deep": b"[" * 100_000,
    "NaN": b'{"api": NaN}',
    "another API": request(api=2),
    "no images": request(pictures=None),
    "both forms": request(floats={"shape": [2, 3, 1, 1], "data": ""}),
    "fewer prompts": request(prompts=[{"text": "a"}]),
    "prompt without text": request(prompts=[{}, {}]),
    "prompts no list": request(prompts="ab"),
    "no base64": request(pictures=["*", "*"]),
    "no text": request(pictures=[1, 2]),
    "no PNG": request(pictures=[base64.b64encode(b"GIF89a").decode()] * 2),
    "a JPEG": request(pictures=[make_image("RGB", "JPEG")] * 2),
    "transparent": request(pictures=[make_image("RGBA")] * 2),
    "two sizes": request(pictures=[json.loads(request())["pictures"][0], make_image("RGB")]),
    "cut short": request(pictures=[json.loads(request())["pictures"][0][:400]] * 2),
    "no image at all": request(pictures=[], prompts=[]),
    "progress": request(progress=2),
    "floats too few": request(pictures=None, floats={"shape": [2, 3, 4, 4], "data": "AAAA"}),
    "floats of no shape": request(pictures=None, floats={"shape": [2, 3, -4, 4], "data": "AAAA"}),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_a_malformed_request_is_answered_400_with_one_line(
    served: tuple[str, Any], what: str
) -> None:
    status, reply = post(served[0], "/score/compressibility", MALFORMED[what])
    assert status == 400
    assert reply["error"]
    assert "\n" not in reply["error"]


def test_what_is_not_served_is_404_and_another_content_type_415(served: tuple[str, Any]) -> None:
    status, reply = post(served[0], "/score/compresibility", request())
    assert (status, reply["error"]) == (
        404,
        "no reward 'compresibility' is served here; did you mean 'compressibility'?",
    )
    assert (
        post(
            served[0],
            "/score/compressibility",
            request(),
            **{"Content-Type": "application/octet-stream"},
        )[0]
        == 415
    )
    with pytest.raises(
        ConfigError, match="answered 404: no reward 'compresibility' is served here"
    ):
        resolve(f"{served[0]}/compresibility")


def test_too_large_requests_are_refused_before_they_are_read_or_decoded() -> None:
    with serving("compressibility", limits=Limits(body_bytes=20_000, pixels=1000)) as (address, _):
        path = "/score/compressibility"
        stated = {"Content-Length": "20001"}
        assert post(address, path, b"{", **stated)[0] == 413  # answered before the rest is sent
        assert post(address, path, iter([b" " * 8000] * 3))[0] == 413  # chunks, of no stated length
        status, reply = post(address, path, request())  # 2 × 24 × 24
        assert (status, "the limit is 1000" in reply["error"]) == (413, True)
        floats = {"shape": [1, 3, 40_000, 40_000], "data": ""}
        assert post(address, path, request(pictures=None, floats=floats))[0] == 413
        scorer = make_scorer(resolve(f"{address}/compressibility"))
        batch = byte_images(6)  # too much for one request, so the scorer sends halves
        assert_same_bits(scorer.score(batch), resolve("compressibility").make()(batch))
        with pytest.raises(RewardFailure, match="takes 1000 pixels per request"):
            scorer.score(byte_images(1, side=40))


def test_a_image_that_unpacks_to_too_much_is_not_unpacked() -> None:
    from io import BytesIO

    from PIL import Image

    file = BytesIO()
    Image.new("RGB", (6000, 6000)).save(file, "PNG")
    assert len(file.getvalue()) < 200_000
    body = request(pictures=[base64.b64encode(file.getvalue()).decode()] * 2)
    started = time.process_time()
    with pytest.raises(Refused, match="the limit is 1000000"):
        decode_batch(body, Limits(pixels=1_000_000))
    assert time.process_time() - started < 0.1


def test_without_the_token_nothing_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving("compressibility", token="right") as (address, _):
        for headers in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": "right"},
            {"Authorization": "Bearer r\xefght"},
        ):
            assert post(address, "/score/compressibility", request(), **headers)[0] == 401
        with pytest.raises(ConfigError, match=r"answered 401: .*; set DDPO_REWARD_TOKEN"):
            RemoteReward(f"{address}/compressibility")
        assert len(resolve(f"{address}/compressibility:token=right").make()(byte_images(2))) == 2
        monkeypatch.setenv("DDPO_REWARD_TOKEN", "right")
        assert len(RemoteReward(f"{address}/compressibility")(byte_images(2))) == 2


def test_loopback_is_asked_directly_whatever_the_proxy(
    served: tuple[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert len(RemoteReward(f"{served[0]}/compressibility")(byte_images(2))) == 2


def test_health_names_rewards_signatures_and_the_api(served: tuple[str, Any]) -> None:
    connection = http.client.HTTPConnection(served[0].removeprefix("http://"), timeout=20)
    connection.request("GET", "/health")
    reported = json.loads(connection.getresponse().read())
    connection.close()
    assert (reported["status"], reported["api"]) == ("ok", 1)
    assert set(reported["rewards"]) == {"compressibility", "symmetry", "words"}
    assert reported["rewards"]["symmetry"]["signature"] == resolve("symmetry").signature


def test_a_server_that_is_gone_or_another_is_distinguished(words: str, tmp_path: Path) -> None:
    with serving(words) as (address, _):
        remote = RemoteReward(f"{address}/words")
    port = int(address.rpartition(":")[2])
    with pytest.raises(RewardUnavailable, match=f"^{address} does not answer: .*refused"):
        remote(byte_images(1))
    with pytest.raises(RewardUnavailable, match="does not answer"):
        resolve(f"{address}/words")
    edited = tmp_path / "words.py"
    edited.write_text(OWN.replace("/ 3", "/ 4"))
    with (
        serving(f"{edited}:Words", port=port),
        pytest.raises(RewardFailure, match=r"serves another words than before: .*; before: "),
    ):
        remote(byte_images(1))


@contextmanager
def answering(status: int, body: bytes, **headers: str) -> Iterator[str]:
    """A server that gives every request the same answer."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
    ).start()
    yield f"http://127.0.0.1:{server.server_port}/compressibility"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("status", "body", "headers", "error", "line"),
    [
        (500, b'{"error": "it\\nbroke"}', {}, RewardUnavailable, "answered 500: it broke"),
        (503, b"busy", {}, RewardUnavailable, "answered 503"),
        (429, b"{}", {}, RewardUnavailable, "answered 429"),
        (302, b"", {"Location": "http://127.0.0.1:9/"}, RewardFailure, "answered 302"),
        (200, b"<html>", {}, RewardFailure, "the reply is not JSON"),
        (200, b"[1]", {}, RewardFailure, "is a JSON list"),
        (200, b'{"api": 1}', {}, RewardFailure, "is not a reward of `ddpo rewards serve`"),
        (200, b'{"api": 2}', {}, NewerApiError, "speaks API 2, this ddpo 1"),
        (200, b"{", {"Content-Length": "100"}, RewardUnavailable, "does not answer"),
    ],
)
def test_other_answers_are_one_line_of_the_right_kind(
    status: int, body: bytes, headers: dict[str, str], error: type[DdpoError], line: str
) -> None:
    with answering(status, body, **headers) as url, pytest.raises(error, match=line) as raised:
        RemoteReward(url)
    assert "\n" not in str(raised.value)
    if status == 302:
        assert not isinstance(raised.value, RewardUnavailable)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org"])
def test_other_machines_may_ask_only_with_a_token(host: str) -> None:
    with pytest.raises(ConfigError, match="can be reached from other machines: give a --token"):
        check_token(host, None)
    check_token(host, "t")


def test_loopback_needs_no_token_and_a_token_must_fit_a_header() -> None:
    for host in ("127.0.0.1", "::1", "localhost"):
        check_token(host, None)
    for token in ("", " a", "a\nb", "é"):
        with pytest.raises(ConfigError, match="printable ASCII"):
            check_token("127.0.0.1", token)


@pytest.mark.parametrize(
    ("text", "target", "weight", "options"),
    [
        ("http://127.0.0.1:8712/symmetry", "http://127.0.0.1:8712/symmetry", None, {}),
        ("http://[::1]:8712/acme/cat:0.5", "http://[::1]:8712/acme/cat", 0.5, {}),
        ("https://host/symmetry:2:token=a:b", "https://host/symmetry", 2.0, {"token": "a:b"}),
        ("http://host:80/symmetry:token=t:0.5", "http://host:80/symmetry", 0.5, {"token": "t"}),
    ],
)
def test_a_url_is_a_reward_whose_port_is_no_weight(
    text: str, target: str, weight: float | None, options: dict[str, str]
) -> None:
    _, (term,) = parse_expression(text)
    assert (term.kind, term.target, term.weight, dict(term.options)) == (
        "url",
        target,
        weight,
        options,
    )


@pytest.mark.parametrize(
    "text",
    ["http://host:8712", "http://host:8712/", "http:///x", "http://host:port/x", "http://h/x?y"],
)
def test_a_url_without_a_reward_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="not of the form http://host:port/name"):
        parse_expression(text)
    with pytest.raises(ConfigError, match="holds no user or password"):
        RemoteReward("http://user:word@127.0.0.1:1/x")
    assert parse_spec("symmetry").kind == "name"


def test_remote_rewards_are_combined_like_others(served: tuple[str, Any]) -> None:
    batch = byte_images(3)
    address = served[0]
    mixed = resolve(f"{address}/compressibility:0.5 + symmetry + {address}/words").make()(batch)
    local = [
        resolve(name).make()(batch).values.double() for name in ("compressibility", "symmetry")
    ]
    expected = 0.5 * local[0] + local[1] + RemoteReward(f"{address}/words")(batch).values.double()
    assert mixed.values.tolist() == pytest.approx(expected.tolist(), rel=1e-6)


@pytest.mark.parametrize("name", ["compressibility", "symmetry"])
def test_a_remote_reward_conforms(served: tuple[str, Any], name: str) -> None:
    results = list(iter_results(f"{served[0]}/{name}"))
    assert [(result.name, result.detail) for result in results if not result.ok] == []
    passed = {result.name for result in results if result.outcome == "passed"}
    assert {
        "batch-invariance",
        "order",
        "golden-scores",
        "input-unchanged",
        "threads",
        "empty-batch",
    } <= passed


def test_the_command_line_scores_through_a_server(
    served: tuple[str, Any], ddpo: Run, tmp_path: Path
) -> None:
    from ddpo.images import save_png

    for place, image in enumerate(byte_images(3).images):
        save_png(image, tmp_path / f"{place}.png")
    code, out, _ = ddpo("rewards", "score", f"{served[0]}/compressibility", tmp_path)
    _, local, _ = ddpo("rewards", "score", "compressibility", tmp_path)
    assert code == 0
    assert out.splitlines()[:3] == local.splitlines()[:3]
    assert "origin:server sha256:" in out


def test_more_requests_than_may_wait_are_asked_to_come_again(words: str) -> None:
    gatherer = Gatherer(resolve(words), batch_size=4)
    accepted = []

    def submit_many() -> None:
        for seed in range(2 * MOST_WAITING):
            accepted.append(gatherer.submit(byte_images(1, seed)))

    with pytest.raises(Refused, match="wait already") as raised:
        submit_many()
    assert raised.value.status == 429
    assert len(accepted) >= MOST_WAITING
    assert all(len(result.result(20)) == 1 for result in accepted)
    gatherer.close()


def test_nothing_in_the_package_can_unpickle_or_run_what_arrives() -> None:
    from ddpo.rewards import serve

    for path in Path(serve.__path__[0]).glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        imported = {
            alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.Import)
            for alias in node.names
        }
        imported |= {
            str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
        }
        assert not imported & {
            "pickle",
            "marshal",
            "shelve",
            "dill",
            "cloudpickle",
            "joblib",
            "importlib",
            "subprocess",
        }
        called = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
        assert not {function.id for function in called if isinstance(function, ast.Name)} & {
            "eval",
            "exec",
            "compile",
            "__import__",
        }
        loads = {
            ast.unparse(one)
            for one in called
            if isinstance(one, ast.Attribute) and one.attr in ("load", "loads")
        }
        assert loads <= {"json.loads", "image.load"}


def test_the_command_serves_until_it_is_interrupted() -> None:
    with start_ddpo("rewards", "serve", "compressibility", "symmetry", "--port", "0") as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(2)]
        url, _, signature = lines[0].strip().partition("  ")
        assert signature == resolve("compressibility").signature
        assert len(resolve(url).make()(byte_images(2))) == 2
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert (process.returncode, err) in [(0, ""), (130, ""), (-signal.SIGINT, "")]


def test_the_command_line_tells_what_cannot_be_served_in_one_line(
    ddpo: Run, served: tuple[str, Any]
) -> None:
    code, _, err = ddpo("rewards", "serve", "compressibility", "--host", "0.0.0.0")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "give a --token" in err
    code, _, err = ddpo(
        "rewards", "serve", "compressibility", "--port", served[0].rpartition(":")[2]
    )
    assert (code, len(err.splitlines())) == (2, 1)
    assert "cannot listen on 127.0.0.1" in err
    code, _, err = ddpo("rewards", "serve", "compresibility")
    assert (code, len(err.splitlines())) == (2, 1)
    code, _, err = ddpo("rewards", "score", "http://127.0.0.1:9/compressibility", ".")
    assert (code != 0, len(err.splitlines())) == (True, 1)
