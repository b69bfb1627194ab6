"""The rewards against a real `transformers serve` on loopback: answers equal the local model's."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from packaging.version import Version
from test_bertscore import write_encoder
from test_vlm_rewards import ASKS, favouring_ratings, llava, noise

from ddpo.errors import ConfigError, RewardUnavailable
from ddpo.rewards.models.alignment import QUESTION, Alignment
from ddpo.rewards.models.vlm_judge import rating_of
from ddpo.rewards.scoring.scorer import make_scorer
from ddpo.rewards.vlm import NoLogProbs, jpeg80, open_vlm
from ddpo.rewards.zoo import make_reward, resolve
from ddpo.types import ImageBatch, Prompt

pytest.importorskip(
    "openai", reason="`transformers serve` needs its extra: pip install 'transformers[serving]'"
)
pytest.importorskip("uvicorn")
pytest.importorskip("fastapi")

__all__ = ["favouring_ratings", "llava"]  # the fixtures

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(favouring_ratings: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its address, up to the version. It serves the model of `favouring_ratings`.

    It runs without torchvision, so that it resizes images by Pillow, as the rewards do.
    """
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    program = (
        "import sys; sys.modules['torchvision'] = None; "
        "from transformers.cli.transformers import main; main()"
    )
    command = [sys.executable, "-c", program, "serve", str(favouring_ratings)]
    home = tmp_path_factory.mktemp("hub")
    (home / "hub").mkdir()
    log = (home / "log").open("w")
    process = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"],
        stdout=log,
        stderr=log,
        env=os.environ | {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1"},
    )
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, (home / "log").read_text()[-2000:]
                assert time.monotonic() < deadline
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.kill()
        process.wait()
        log.close()


def test_alignment_there_is_alignment_here(
    server: str, favouring_ratings: Path, tmp_path: Path
) -> None:
    encoder = write_encoder(tmp_path / "bert", "bert")
    model = str(favouring_ratings)
    images = ImageBatch.of_images(
        noise(6).images,
        [Prompt(text) for text in ("a cat", "two dogs", "", "red", "a fox", "the letter 4")],
    )
    there = open_vlm(server, model=model)
    here = open_vlm(model)
    captions = [there.answer(image, QUESTION, 64) for image in images.images]
    assert captions == [here.answer(jpeg80(image), QUESTION, 64) for image in images.images]
    assert len(set(captions)) > 1
    served = make_scorer(
        resolve("alignment", vlm=server, model=model, scorer=str(encoder), layer=3)
    ).score(images)
    local = Alignment(model, str(encoder), layer=3)(images)
    assert torch.equal(served.values, local.values)
    assert all(torch.equal(part, local.parts[name]) for name, part in served.parts.items())


def test_strict_answers_there_are_those_here(server: str, favouring_ratings: Path) -> None:
    asks = Prompt("x", ASKS.metadata | {"answers": ["4", "5"]})
    served = make_reward("vqa_strict", vlm=server, model=str(favouring_ratings))(
        noise(4, prompt=asks)
    )
    local = make_reward("vqa_strict", vlm=str(favouring_ratings))(noise(4, prompt=asks))
    assert torch.equal(served.values, local.values)


def test_without_log_probabilities_the_judge_reads_the_text_and_vqa_score_says_so(
    server: str, favouring_ratings: Path
) -> None:
    model = str(favouring_ratings)
    images = noise(4)
    with pytest.raises(NoLogProbs, match="gives no log-probabilities"):
        open_vlm(server, model=model).first_token_logprobs(images.images[0], "?")
    with pytest.raises(ConfigError) as caught:
        make_scorer(resolve("vqa_score", vlm=server, model=model)).score(images)
    assert str(caught.value).startswith(
        f"reward 'vqa_score': the server {server} gives no log-probabilities"
    )
    assert "`transformers serve` does not" in str(caught.value)
    assert "\n" not in str(caught.value)
    output = make_reward("vlm_judge", vlm=server, model=model, template="show {prompt} ?")(images)
    here = open_vlm(model)
    for place, image in enumerate(images.images):
        due = rating_of(here.answer(jpeg80(image), "show two dogs ?", 16))
        assert (output.errors[place] is None) == (due is not None)
        assert due is None or (output.values[place], output.parts["from_text"][place]) == (due, 1.0)
    assert not output.values.isnan().all()


def test_a_model_of_another_name_and_none_say_what_to_give(
    server: str, favouring_ratings: Path
) -> None:
    image = noise(1).images[0]
    if Version(version("transformers")) >= Version(
        "5.24"
    ):  # since then it lists the model that it serves
        due = open_vlm(server, model=str(favouring_ratings)).answer(image, QUESTION, 8)
        assert open_vlm(server).answer(image, QUESTION, 8) == due
    else:  # it lists what is in the hub's cache: nothing
        with pytest.raises((ConfigError, RewardUnavailable), match="give model=NAME"):
            open_vlm(server).answer(image, QUESTION, 8)
    output = make_reward("vqa_strict", vlm=server, model="other")(noise(1))
    assert output.errors[0] is not None
    assert "Server is pinned to" in output.errors[0]
