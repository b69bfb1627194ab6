"""Rewards in the exact signatures of other trainers work, or one line names the change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ddpo.errors import DdpoError
from ddpo.rewards.scoring.scorer import Scorer
from ddpo.rewards.zoo import make_reward
from ddpo.types import ImageBatch, Prompt

FILE = """
import io
import numpy as np
import torch
from dataclasses import dataclass, field
from PIL import Image

# ddpo-pytorch: a factory without arguments, whose result takes arrays or tensors
def jpeg_size():
    def _fn(images, prompts, metadata):
        if isinstance(images, torch.Tensor):
            images = (images * 255).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
            images = images.transpose(0, 2, 3, 1)
        sizes = []
        for image in images:
            buffer = io.BytesIO()
            Image.fromarray(image).save(buffer, format="JPEG", quality=95)
            sizes.append(buffer.tell() / 1000)
        return np.array(sizes), {}
    return _fn

jpeg = jpeg_size()

# TRL: a factory with arguments, whose result takes tensors
def scorer(hub_id, file_name):
    def _fn(images, prompts, metadata):
        images = (images * 255).round().clamp(0, 255).to(torch.uint8)
        return images.float().mean((1, 2, 3)), {}
    return _fn

trl = scorer("owner/name", "model.pth")

def trl_names(images, prompts, prompt_metadata):
    return torch.tensor([float(facts["n"]) for facts in prompt_metadata]), {}

def trl_converted(images, prompts, metadata):
    images = torch.tensor(images).permute(0, 3, 1, 2) / 255
    return (images * 255).round().clamp(0, 255).mean((1, 2, 3)), {}

def resized(images, prompts, metadata):
    return torch.nn.functional.avg_pool2d(images, 2).mean((1, 2, 3)), {}

# flow_grpo and DiffusionNFT
def clip_score(device):
    def _fn(images, prompts, metadata):
        return torch.ones(len(images)), {}
    return _fn

def multi_score(device, score_dict):
    def _fn(images, prompts, metadata, only_strict=True):
        return {}, {}
    return _fn

def lists(images, prompts, metadata, only_strict=True):
    return {"ocr": [1.0, 2.0], "avg": [0.25, 0.5]}, {}

def lists_and_metadata(images, prompts, metadata):
    return {"ocr": [1.0, 2.0], "avg": [0.25, 0.5]}, metadata

def scores_and_metadata(images, prompts, metadata):
    return [0.25, 0.5], metadata

def scores_and_none(images, prompts, metadata):
    return np.array([0.25, 0.5]), None

def without_total(images, prompts, metadata):
    return {"ocr": [1.0, 2.0], "clip": [0.0, 1.0]}, {}

def geneval(images, prompts, metadatas, only_strict):
    return [1.0, 0.0], [1.0, 1.0], [1.0, 0.0], {}, {}

def two_numbers(images):
    return 0.25, 0.5

# Flow-Factory
@dataclass
class RewardModelOutput:
    rewards: object
    extra_info: dict = field(default_factory=dict)

class PointwiseRewardModel:
    def __init__(self, config, accelerator):
        self.config = config

class Brightness(PointwiseRewardModel):
    def __call__(self, prompt, image=None, video=None, condition_images=None):
        means = [np.asarray(each).mean() for each in image]
        return RewardModelOutput(torch.tensor(means), {"length": [len(text) for text in prompt]})

made = Brightness(None, None)

def brightness(images, prompts):
    return Brightness(None, None)(prompts, [Image.fromarray(image) for image in images])

# AlignProp
def loss_fn(im_pix_un, prompts):
    rewards = torch.tensor(im_pix_un.mean((1, 2, 3)))
    return (rewards - 10).abs().mean(), rewards

def score(im_pix_un, prompts):
    return loss_fn(im_pix_un, prompts)[1]
"""


@pytest.fixture
def scored(tmp_path: Path) -> Any:
    """Scores two images, of level 10 and 20, with an object of `FILE`."""
    path = tmp_path / "theirs.py"
    path.write_text(FILE)
    images = np.stack([np.full((8, 8, 3), level, np.uint8) for level in (10, 20)])
    prompts = (Prompt("ab", {"n": 3}), Prompt("abc", {"n": 4}))

    def call(name: str) -> Any:
        return Scorer(make_reward(f"{path}:{name}")).score(ImageBatch.of_uint8(images, prompts))

    return call


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("trl_names", [3.0, 4.0]),
        ("trl_converted", [10.0, 20.0]),
        ("lists", [0.25, 0.5]),
        ("lists_and_metadata", [0.25, 0.5]),
        ("scores_and_metadata", [0.25, 0.5]),
        ("scores_and_none", [0.25, 0.5]),
        ("two_numbers", [0.25, 0.5]),
        ("made", [10.0, 20.0]),
        ("brightness", [10.0, 20.0]),
        ("score", [10.0, 20.0]),
    ],
)
def test_these_work_as_they_are(scored: Any, name: str, expected: list[float]) -> None:
    assert scored(name).values.tolist() == pytest.approx(expected)


def test_the_jpeg_reward_of_ddpo_pytorch_is_that_of_the_zoo(scored: Any) -> None:
    images = np.stack([np.full((8, 8, 3), level, np.uint8) for level in (10, 20)])
    batch = ImageBatch.of_uint8(images, (Prompt(""), Prompt("")))
    assert torch.equal(scored("jpeg").values, make_reward("incompressibility")(batch).values)


def test_information_and_other_scores_are_parts(scored: Any) -> None:
    assert scored("lists_and_metadata").parts["ocr"].tolist() == [1.0, 2.0]
    assert scored("made").parts["length"].tolist() == [2.0, 3.0]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("jpeg_size", r"write `reward = jpeg_size\(\)` and name `reward`"),
        ("clip_score", r"write `reward = clip_score\(device=…\)` and name `reward`"),
        ("scorer", "the function returned a function: if that is the reward, write"),
        ("multi_score", r"write `reward = multi_score\(device=…, score_dict=…\)`"),
        ("trl", "theirs.py:27: AttributeError: .*begin with `images = torch.tensor"),
        ("resized", "theirs.py:.*begin with `images = torch.tensor"),
        ("without_total", "or their total as 'avg'"),
        ("geneval", r"must take \(images\)"),
        ("Brightness", r"made by Flow-Factory: write `def reward\(images, prompts\)`"),
        ("loss_fn", r"of the tuple \(Tensor, Tensor\) return the scores alone"),
    ],
)
def test_these_are_refused_in_one_line_that_names_the_change(
    scored: Any, name: str, change: str
) -> None:
    with pytest.raises(DdpoError, match=change) as caught:
        scored(name)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 420
