"""Training with a reward behind a failing server.

The run stops in time and resumes to the bit, or continues without a bad image.
"""

from __future__ import annotations

import json
import re
import socket
import time
import tomllib
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from fault_server import FaultServer, fault_server, image_url
from test_bertscore import write_encoder

from ddpo.errors import ConfigError, RewardUnavailable
from ddpo.io.tensors import load_tensors
from ddpo.rewards.scoring import call as calling
from ddpo.trainer import config_for, config_from_dict
from ddpo.trainer.loop import resume, train
from ddpo.trainer.monitoring.events import IterationDone
from tests.warm_start import Process, start_ddpo

Run = Callable[..., tuple[int, str, str]]
TRIES = 4  # of one question: the first and three more
PATIENCE = 30.0  # seconds, for tests without a time-out
TIMEOUT = 0.3  # seconds, for tests with one
RECIPE = """
iterations = {iterations}
checkpoint_every = 2
grid_every = 9
[sample]
samples = 8
per_prompt = 4
steps = 3
batch = 4
[optim]
updates = 1
timesteps = 2
lr = 1e-2
[advantage]
min_count = 2
"""


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr(calling, "FIRST_PAUSE", 0.01)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("scorer") / "bert", "bert")


@pytest.fixture
def start(
    ddpo: Run, tiny_model: Path, encoder: Path, tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """Exit code and outputs of `ddpo train` on the tiny model with a server's alignment reward."""

    def call(
        server: FaultServer, out: Path, iterations: int = 2, timeout: float = PATIENCE
    ) -> tuple[int, str, str]:
        recipe = tmp_path / f"{iterations}.toml"
        recipe.write_text(RECIPE.format(iterations=iterations))
        reward = f"alignment:vlm={server.url},scorer={encoder},layer=3,timeout={timeout}"
        return ddpo(
            "train", "--recipe", recipe, "--model", tiny_model, "--reward", reward, "--out", out
        )

    return call


def metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without the time they took."""
    path = folder / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [
        {name: value for name, value in line.items() if not name.startswith("seconds")}
        for line in lines
    ]


def assert_same_run(one: Path, other: Path) -> None:
    assert metrics(one) == metrics(other)
    states = [load_tensors(folder / "state" / "state.safetensors") for folder in (one, other)]
    assert states[0][1] == states[1][1]
    assert states[0][0].keys() == states[1][0].keys()
    assert all(torch.equal(value, states[1][0][name]) for name, value in states[0][0].items())


def said(text: str) -> str:
    """What was printed, as one line."""
    return " ".join(text.split())


@pytest.fixture(scope="module")
def straight(
    tiny_model: Path, encoder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[dict[str, Any]]]:
    """The run folder of two iterations without a fault, and the questions that were asked in it."""
    out = tmp_path_factory.mktemp("straight") / "run"
    with fault_server(then="by picture") as server:
        values = tomllib.loads(RECIPE.format(iterations=2))
        reward = f"alignment:vlm={server.url},scorer={encoder},layer=3,timeout={PATIENCE}"
        list(train(config_for(values | {"model": str(tiny_model), "reward": reward}), out))
        return out, server.requests


def test_the_uninterrupted_run_learns_something(
    straight: tuple[Path, list[dict[str, Any]]],
) -> None:
    lines = metrics(straight[0])
    assert [line["updates"] for line in lines] == [1, 1]
    assert all(line["grad_norm"] > 0 for line in lines)
    assert len(straight[1]) == 16


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("hangs", "gave no answer within 0.3 s"),
        ("drops", "cannot be reached"),
        ("cut short", "bytes too early"),
        ("429", "answered 429"),
        ("500", "answered 500"),
    ],
)
def test_an_outage_stops_the_run_and_it_resumes_to_the_bit(
    start: Any,
    ddpo: Run,
    straight: tuple[Path, list[dict[str, Any]]],
    tmp_path: Path,
    fault: str,
    reason: str,
) -> None:
    out = tmp_path / "a run"
    with fault_server(then=fault) as server:
        # of the four images in the last batch of the second iteration, one is answered
        server.good = 13
        started = time.monotonic()
        code, _, err = start(server, out, timeout=TIMEOUT if fault == "hangs" else PATIENCE)
        assert code == 1
        assert reason in said(err)
        assert f"tried {TRIES} times (3 of 4 images) — the finished iterations" in said(err)
        assert f"are kept in {out}/state; resume with: " in said(err)
        assert said(err).endswith(f"ddpo train --resume '{out}'")
        assert len(err.strip().splitlines()) == 1
        # the three images, then the one that had been answered
        assert len(server.requests) == 13 + (3 + 1) * TRIES
        if fault == "hangs":  # three at once, then the witness
            assert time.monotonic() - started < (1 + 1) * TRIES * TIMEOUT + 10
        assert [line["iteration"] for line in metrics(out)] == [1]
        assert not [path for path in out.rglob("*") if ".tmp" in path.name]
        before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
        if fault == "500":
            code, _, err = ddpo("train", "--resume", out)  # it is not back yet
            assert (code, err.count("--resume")) == (1, 1)
            assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
        server.good = None
        server.then = "by picture"
        assert ddpo("train", "--resume", out)[0] == 0
    assert_same_run(out, straight[0])


def test_an_outage_from_the_start_is_stopped_after_the_first_batch(
    start: Any, ddpo: Run, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with fault_server(then="503") as server:
        code, _, err = start(server, out, iterations=1)
        assert code == 1
        assert f"tried {TRIES} times (4 of 4 images) — no iteration was finished; " in said(err)
        assert f"resume with: ddpo train --resume {out}" in said(err)
        assert len(server.requests) == 4 * TRIES
        server.then = "by picture"
        assert ddpo("train", "--resume", out)[0] == 0
    assert len(metrics(out)) == 1


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("rubbish", "the server's answer is not JSON"),
        ("empty", "the model's answer is empty"),
        ("5000 words", "the model's answer has 5000 words"),
        ("400", "the server answered 400"),
    ],
)
def test_a_bad_answer_costs_its_image_alone(
    start: Any, tmp_path: Path, fault: str, reason: str
) -> None:
    with fault_server(fault, then="by picture") as server:
        assert start(server, tmp_path / "run", iterations=1)[0] == 0
        assert len(server.requests) == 8  # none is asked again
    (line,) = metrics(tmp_path / "run")
    assert (line["unscorable"], line["updates"]) == (1, 1)
    assert line["unscorable_reason"].startswith(reason)
    with fault_server(then=fault) as server:
        code, _, err = start(server, tmp_path / "none", iterations=1)
        assert code == 1
        assert re.search(
            rf"could score none of 8 images; the first: {reason}.* — "
            r"no iteration was finished; repeat the command, or resume with:",
            said(err),
        )
        assert len(server.requests) == 8
    assert metrics(tmp_path / "none") == []
    assert not (tmp_path / "none" / "state").exists()


def test_a_server_that_breaks_on_one_image_alone_does_not_hold_up_the_run(
    start: Any, straight: tuple[Path, list[dict[str, Any]]], tmp_path: Path
) -> None:
    """Otherwise the same image would break the run each time it is resumed."""
    with fault_server(then="by picture") as server:
        server.bad = {image_url(straight[1][5])}
        assert start(server, tmp_path / "run", iterations=1)[0] == 0
        asked = [image_url(request) for request in server.requests]
    (line,) = metrics(tmp_path / "run")
    assert line["unscorable"] == 1
    assert "answered 500" in line["unscorable_reason"]
    assert asked.count(image_url(straight[1][5])) == 2 * TRIES
    assert len(asked) == 7 + 2 * TRIES + 2  # the witness, before and after


@pytest.mark.parametrize("bad", [False, True])
def test_a_part_of_a_combination(
    ddpo: Run,
    tiny_model: Path,
    straight: tuple[Path, list[dict[str, Any]]],
    tmp_path: Path,
    bad: bool,
) -> None:
    """An image that breaks the server is distinguished from an outage within one batch."""
    recipe = tmp_path / "recipe.toml"
    out = tmp_path / "run"
    recipe.write_text(RECIPE.format(iterations=1))
    with fault_server(then="by picture" if bad else "500") as server:
        server.bad = {image_url(straight[1][0])} if bad else set()
        reward = f"vqa_score:vlm={server.url},model=m"
        code, _, err = ddpo(
            "train",
            "--recipe",
            recipe,
            "--model",
            tiny_model,
            "--reward",
            reward,
            "--reward",
            "darkness:0.1",
            "--out",
            out,
        )
        if bad:
            assert code == 0
        else:
            assert code == 1
            assert f"tried {TRIES} times" in said(err)
            # the batch, and two of its images alone
            assert len(server.requests) <= (4 + 1 + 1) * TRIES
            server.then = "by picture"
            assert ddpo("train", "--resume", out)[0] == 0
    (line,) = metrics(out)
    assert (line["unscorable"], line["updates"]) == (int(bad), 1)


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@contextmanager
def served(port: int) -> Iterator[Process]:
    """`ddpo rewards serve compressibility` in a process of its own, killed at the end."""
    process = start_ddpo("rewards", "serve", "compressibility", "--port", port)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).close()
                break
            except OSError:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_a_served_reward_that_is_killed_and_started_again_costs_nothing(
    tiny_model: Path, tmp_path: Path
) -> None:
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    port = free_port()
    out = tmp_path / "run"
    values = tomllib.loads(RECIPE.format(iterations=2)) | {"model": str(tiny_model)}
    with served(port) as process:
        events = train(
            config_from_dict(values | {"reward": f"http://127.0.0.1:{port}/compressibility"}), out
        )
        next(event for event in events if isinstance(event, IterationDone))
        process.kill()
        process.wait()
        with pytest.raises(
            RewardUnavailable,
            match=rf"does not answer: .*; tried {TRIES} times \(4 of 4 images\)",
        ):
            list(events)
    assert [line["iteration"] for line in metrics(out)] == [1]
    with pytest.raises(RewardUnavailable, match="does not answer"):
        list(resume(out))
    assert [line["iteration"] for line in metrics(out)] == [1]
    with served(port):
        list(resume(out))
    straight = tmp_path / "straight"
    list(train(config_from_dict(values | {"reward": "compressibility"}), straight))
    assert_same_run(out, straight)


def test_a_run_is_not_resumed_with_a_server_that_serves_another_reward_under_the_name(
    tiny_model: Path, tmp_path: Path
) -> None:
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    from test_serve import serving

    port = free_port()
    out = tmp_path / "run"
    values = tomllib.loads(RECIPE.format(iterations=1)) | {"model": str(tiny_model)}
    with fault_server(then="by picture") as vlm:
        with serving(f"vqa_score:vlm={vlm.url},model=first", port=port):
            list(
                train(
                    config_from_dict(values | {"reward": f"http://127.0.0.1:{port}/vqa_score"}), out
                )
            )
        with (
            serving(f"vqa_score:vlm={vlm.url},model=second", port=port),
            pytest.raises(ConfigError, match="is not the one that it was"),
        ):
            list(resume(out, iterations=2))
        with serving(f"vqa_score:vlm={vlm.url},model=first", port=port):
            list(resume(out, iterations=2))
    assert [line["iteration"] for line in metrics(out)] == [1, 2]
