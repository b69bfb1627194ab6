"""VLM rewards against a real server on loopback that hangs, drops, refuses or is malformed."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fault_server import CAPTION, FaultServer, fault_server
from PIL import Image
from test_bertscore import write_encoder

from ddpo.errors import ConfigError, RewardFailure, RewardUnavailable
from ddpo.rewards.cache import ScoreCache
from ddpo.rewards.cards import CARDS
from ddpo.rewards.check import check_reward
from ddpo.rewards.check.run import all_checks
from ddpo.rewards.models.alignment import QUESTION
from ddpo.rewards.models.bertscore import BertScore
from ddpo.rewards.models.vlm_reward import SERVER_CALLS
from ddpo.rewards.scoring import call
from ddpo.rewards.scoring.scorer import Scorer, make_scorer
from ddpo.rewards.vlm import NoLogProbs, UnusableAnswer, jpeg80, open_vlm
from ddpo.rewards.zoo import make_reward, resolve
from ddpo.types import ImageBatch, Prompt

IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 48, 3)).astype(np.uint8))
RETRIES = 3


@pytest.fixture(scope="module")
def scorer_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("scorer") / "bert", "bert")


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr(call, "FIRST_PAUSE", 0.01)


def batch(count: int) -> ImageBatch:
    images = np.random.default_rng(1).integers(0, 256, (count, 16, 16, 3)).astype(np.uint8)
    return ImageBatch.of_uint8(images, [Prompt(f"a cat {place}") for place in range(count)])


def scorer_of(server: FaultServer, encoder: Path, **options: Any) -> Any:
    return make_scorer(
        resolve("alignment", vlm=server.url, scorer=str(encoder), layer=3, **options)
    )


def test_the_request_is_the_one_of_the_protocol() -> None:
    with fault_server() as server:
        assert open_vlm(server.url + "/").answer(IMAGE, "What is this?", 64) == CAPTION
        (request,) = server.requests
        assert server.paths == ["/v1/models", "/v1/chat/completions"]
        assert (request["model"], request["temperature"], request["max_tokens"]) == (
            "tiny-vlm",
            0,
            64,
        )
        (message,) = request["messages"]
        assert message["content"][1] == {"type": "text", "text": "What is this?"}
        assert np.array_equal(
            server.image(0), np.asarray(jpeg80(IMAGE))
        )  # the same JPEG that a local model is shown
        assert "authorization" not in server.headers[0]


def test_log_probabilities_of_the_first_token_and_a_named_model() -> None:
    with fault_server() as server:
        vlm = open_vlm(server.url, model="mine")
        assert vlm.first_token_logprobs(IMAGE, "Yes or no?") == {"Yes": -0.25, "No": -1.5}
        (request,) = server.requests
        assert [request[name] for name in ("model", "max_tokens", "logprobs", "top_logprobs")] == [
            "mine",
            1,
            True,
            20,
        ]
        server.faults = ["no choices"]
        with pytest.raises(UnusableAnswer, match="no log-probabilities") as caught:
            vlm.first_token_logprobs(IMAGE, "Yes or no?")
        assert not isinstance(caught.value, NoLogProbs)  # it said nothing at all


def test_the_key_goes_to_this_machine_and_over_https_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    with fault_server() as server:
        open_vlm(server.url).answer(IMAGE, "?", 64)
        assert server.headers[0]["authorization"] == "Bearer secret"
    for url, sent in [("http://gpu.example/v1", False), ("https://gpu.example/v1", True)]:
        vlm: Any = open_vlm(url, model="m")
        seen: list[Any] = []
        monkeypatch.setattr(
            vlm._opener,
            "open",
            lambda request, timeout, seen=seen: (
                seen.append(request) or (_ for _ in ()).throw(OSError())
            ),
        )
        with pytest.raises(RewardUnavailable):
            vlm.answer(IMAGE, "?", 64)
        assert seen[0].has_header("Authorization") == sent


@pytest.mark.parametrize(
    "url",
    ["http://", "http://me:secret@host/v1", "https://host/v1?key=secret", "http://host/v1#part"],
)
def test_an_address_that_cannot_be_is_refused_without_telling_its_secret(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_vlm(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("timeout_s", [0, -1.0, math.nan, math.inf])
def test_a_timeout_that_cannot_be_is_refused(timeout_s: float) -> None:
    with pytest.raises(ConfigError, match="timeout must be"):
        open_vlm("http://127.0.0.1:1/v1", timeout_s=timeout_s)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("empty", "the model's answer is empty"),
        ("null", "the model's answer is empty"),
        ("no choices", "the model's answer is empty"),
        ("a number", "the model's answer is empty"),
        (
            "5000 words",
            "the model's answer has 5000 words, more than the 64 requested tokens",
        ),
        ("a list", "the server's answer is not a text"),
        ("rubbish", "the server's answer is not JSON: "),
        ("nested", "the server's answer is not JSON: [[["),
        ("huge", "the server's answer is longer than 4 MB"),
        ("400", 'the server answered 400: {"error": "the image is too small"}'),
    ],
)
def test_an_answer_that_says_nothing_makes_its_image_alone_unscorable(
    scorer_model: Path, fault: str, reason: str
) -> None:
    with fault_server() as server:
        scorer = scorer_of(server, scorer_model)
        good = scorer.score(batch(1))
        server.faults = [fault]
        output = scorer.reward(
            batch(3)
        )  # one after the other, so that the first image gets the fault
        assert output.errors[0].startswith(reason)
        assert "\n" not in output.errors[0]
        assert output.errors[1:] == (None, None)
        assert math.isnan(output.values[0])
        assert all(
            math.isnan(part[0]) for name, part in output.parts.items() if name != "truncated"
        )
        assert len(server.requests) == 4  # none was asked again
        assert not math.isnan(good.values[0])


@pytest.mark.parametrize("fault", ["drops", "cut short", "429", "500", "503"])
def test_a_server_that_recovers_is_asked_again_and_the_scores_are_those_of_a_local_run(
    scorer_model: Path, fault: str
) -> None:
    with fault_server(*[fault] * RETRIES) as server:
        output = scorer_of(server, scorer_model).score(batch(1))
        due = BertScore(str(scorer_model), 3).score(CAPTION, "The image contains a cat 0")
        assert (
            output.values[0],
            output.parts["precision"][0],
            output.parts["f1"][0],
        ) == pytest.approx((due.recall, due.precision, due.f1))
        assert len(server.requests) == RETRIES + 1


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("500", "answered 500: Traceback (most recent call last): boom"),
        ("429", 'answered 429: {"error": "slow down"}'),
        ("drops", "cannot be reached: RemoteDisconnected"),
        ("cut short", "bytes too early"),
    ],
)
def test_a_server_that_stays_down_is_not_asked_more_often_than_stated(
    scorer_model: Path, fault: str, reason: str
) -> None:
    with fault_server(then=fault) as server:
        with pytest.raises(RewardUnavailable) as caught:
            scorer_of(server, scorer_model).score(batch(1))
        assert reason in str(caught.value)
        assert f"tried {RETRIES + 1} times" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert len(server.requests) == RETRIES + 1


@pytest.mark.parametrize("fault", ["drops", "cut short", "429", "500", "hangs"])
def test_an_outage_is_not_searched_for_a_image_to_blame(scorer_model: Path, fault: str) -> None:
    """Four requests for each image, and the end after eight images in a row.

    Seven more may be under way then.
    """
    timeout = 0.3 if fault == "hangs" else 30.0
    with fault_server(then=fault) as server:
        found = scorer_of(server, scorer_model, timeout=timeout, model="m").score_each(batch(7))
        assert found.unavailable == found.failed == set(range(7))
        assert len(server.requests) == 7 * (RETRIES + 1)
        server.requests.clear()
        with pytest.raises(
            RewardUnavailable, match="failed 8 times in a row and is taken for broken"
        ):
            scorer_of(server, scorer_model, timeout=timeout, model="m").score_each(batch(40))
        time.sleep(timeout if fault == "hangs" else 0.2)  # for those that are under way
        assert 8 * (RETRIES + 1) <= len(server.requests) <= 15 * (RETRIES + 1)


@pytest.mark.parametrize(
    ("asked", "least", "most"),
    [
        (None, 0.0, 2.0),
        ("3", 3.0, 5.0),
        ("3600", 30.0, 30.0),
        ("soon", 0.0, 2.0),
        ("Fri, 01 Jan 2100 00:00:00 GMT", 30.0, 30.0),
        ("Mon, 01 Jan 2024 00:00:00 GMT", 0.0, 2.0),
        ("-5", 0.0, 2.0),
    ],
)
def test_a_busy_server_is_left_alone_for_as_long_as_it_asks_but_not_longer_than_half_a_minute(
    monkeypatch: pytest.MonkeyPatch, asked: str | None, least: float, most: float
) -> None:
    monkeypatch.setattr(call, "FIRST_PAUSE", 0.5)
    with fault_server(then="429") as server:
        server.retry_after = asked
        reward = make_reward("vqa_score", vlm=server.url)
        pauses = []
        with pytest.raises(RewardUnavailable, match="answered 429"):
            Scorer(reward, pause=pauses.append).score(batch(1))
        assert len(server.requests) == RETRIES + 1
    assert len(pauses) == RETRIES
    assert all(least <= pause <= most for pause in pauses), pauses


def test_every_reward_that_asks_a_server_is_called_in_the_same_way(scorer_model: Path) -> None:
    found = {
        name: make_reward(name, vlm="http://127.0.0.1:9/v1", timeout=7.0)
        for name in ("vqa_strict", "vqa_score", "vlm_judge")
    }
    found["alignment"] = make_reward(
        "alignment", vlm="http://127.0.0.1:9/v1", timeout=7.0, scorer=str(scorer_model), layer=3
    )
    assert {
        (reward.card.thread_safe, reward.card.calls, reward.card.cache) for reward in found.values()
    } == {(True, SERVER_CALLS, False)}
    for reward in found.values():
        assert reward._vlm._timeout == 7.0  # type: ignore[attr-defined]
    assert not any(CARDS[name].thread_safe for name in found)


def test_each_image_without_an_answer_is_failed_and_eight_in_a_row_are_the_end(
    scorer_model: Path,
) -> None:
    with fault_server(then="500") as server:
        scorer = scorer_of(server, scorer_model)
        found = scorer.score_each(batch(3))
        assert found.failed == {0, 1, 2}
        assert all("answered 500" in (error or "") for error in found.errors)
        with pytest.raises(RewardFailure, match="failed 8 times in a row and is taken for broken"):
            scorer.score_each(batch(40))
        server.then = "ok"
        assert scorer_of(server, scorer_model).score(batch(40)).errors == (None,) * 40


@pytest.mark.parametrize("fault", ["hangs", "drips"])
def test_no_request_outlives_its_timeout(scorer_model: Path, fault: str) -> None:
    with fault_server(then=fault) as server:
        scorer = scorer_of(server, scorer_model, timeout=0.3)
        started = time.monotonic()
        with pytest.raises(RewardUnavailable, match=r"gave no answer within 0\.3 s"):
            scorer.score(batch(1))
        assert time.monotonic() - started < (RETRIES + 1) * 0.3 + 1.0
        assert len(server.requests) == RETRIES + 1


def test_where_nothing_listens() -> None:
    with fault_server() as server:
        url = server.url
    with pytest.raises(RewardUnavailable, match="cannot be reached: URLError"):
        open_vlm(url, model="m").answer(IMAGE, "?", 64)


@pytest.mark.parametrize(("fault", "status"), [("redirect", 302), ("401", 401)])
def test_a_redirect_is_not_followed_and_a_refusal_is_the_users_to_mend(
    scorer_model: Path, fault: str, status: int
) -> None:
    with fault_server() as other, fault_server(then=fault) as server:
        server.elsewhere = other.url + "/chat/completions"
        with pytest.raises(ConfigError, match=f"answered /chat/completions with {status}"):
            scorer_of(server, scorer_model).score(batch(1))
        assert len(server.requests) == 1
        assert other.paths == []


def test_images_are_asked_side_by_side_and_come_back_in_order(scorer_model: Path) -> None:
    with fault_server() as server:
        scorer = scorer_of(server, scorer_model)
        assert (scorer.reward.card.thread_safe, scorer.reward.card.calls.concurrency) == (True, 8)
        output = scorer.score(batch(40))
        one_by_one = torch.cat(
            [scorer.reward(batch(40)[place : place + 1]).values for place in range(0, 40, 7)]
        )
        assert torch.equal(output.values[::7], one_by_one)
        assert (
            len(
                {
                    request["messages"][0]["content"][0]["image_url"]["url"]
                    for request in server.requests
                }
            )
            == 40
        )
        assert {request["messages"][0]["content"][1]["text"] for request in server.requests} == {
            QUESTION
        }
        assert server.paths.count("/v1/models") == 1


def test_the_conformance_kit_passes_with_a_server(scorer_model: Path) -> None:
    with fault_server() as server:
        spec = f"alignment:vlm={server.url},model=m,scorer={scorer_model},layer=3"
        only = {*all_checks()} - {"light-listing", "missing-weights"}
        results = {result.name: result for result in check_reward(spec, only=only)}
    assert {name: result.detail for name, result in results.items() if not result.ok} == {}
    for name in ("threads", "order", "batch-invariance", "empty-batch", "long-prompt", "memory"):
        assert results[name].outcome == "passed", results[name]


@pytest.mark.parametrize("name", ["vqa_score", "vqa_strict"])
def test_the_other_rewards_behind_a_server_keep_their_card_and_stand_threads(name: str) -> None:
    asks = Prompt("a cat", {"questions": ["who?", "where?"], "answers": ["cat", "house"]})
    with fault_server(then="by picture") as server:
        found = check_reward(
            resolve(name, vlm=server.url, model="m"),
            only={"construction", "threads", "order", "contract"},
            prompt=asks,
        )
        assert {
            result.name: (result.outcome, result.detail)
            for result in found
            if result.outcome != "passed"
        } == {}
        assert len(found) == 4


def test_scores_of_a_model_without_a_name_are_not_cached(
    scorer_model: Path, tmp_path: Path
) -> None:
    with fault_server() as server:
        for options, asked in [({}, 4), ({"model": "tiny-vlm"}, 2)]:
            server.requests.clear()
            with ScoreCache(tmp_path / f"{len(options)}.db") as cache:
                for _ in range(2):
                    resolved = resolve(
                        "alignment", vlm=server.url, scorer=str(scorer_model), layer=3, **options
                    )
                    make_scorer(resolved, cache=cache).score(batch(2))
            assert len(server.requests) == asked
