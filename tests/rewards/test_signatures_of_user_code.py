"""Rewards as people have them: functions of other trainers, classes without a card."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddpo.errors import ContractBroken, UserError
from ddpo.rewards.zoo import make_reward, resolve
from ddpo.types import ImageBatch, Prompt

FILE = '''
import numpy as np
import torch

def ddpo_pytorch(images, prompts, metadata):
    """Red level."""
    return images[..., 0].mean((1, 2)), {"length": [len(prompt) for prompt in prompts]}

def trl(images, prompts, metadata):
    return torch.tensor([float(len(prompt)) for prompt in prompts]), {}

def flow_grpo(images, prompts, metadata, only_strict=True):
    return {"red": [1.0] * len(images), "avg": [0.5] * len(images)}, {}

def several(images):
    return {"red": [1.0], "blue": [2.0]}

def prompts_of_none(images, prompts=None):
    return [-1.0 if prompts is None else float(len(text)) for text in prompts or [""] * len(images)]

def texts_of_none(images, texts=None):
    return [-1.0] * len(images) if texts is None else [float(len(text)) for text in texts]

def text_option(images, text="abcd"):
    return [float(len(text))] * len(images)

def facts(images, prompts, metadata=None):
    return [float(facts["n"]) for facts in metadata]

def twice(images, image=None):
    return [0.0] * len(images)

class Weighted:
    """A scale from a file."""

    def __init__(self, weights, device, power=1):
        self.scale = float(weights) ** power
        self.device = device

    def __call__(self, images, prompts=None):
        assert self.device == "cpu"
        return [self.scale * len(prompt) for prompt in prompts]

class Plain:
    def __call__(self, images):
        return images.mean((1, 2, 3))

class Module(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(2.0))

    def forward(self, images, prompts):
        return [self.gain.item() * len(prompt) for prompt in prompts]

class NoCall:
    pass

class OldStyle:
    def __call__(self, batch):
        return batch
'''

PROMPTS = (Prompt("ab", {"n": 3}), Prompt("abc", {"n": 4}))


@pytest.fixture
def score(tmp_path: Path) -> Callable[..., Any]:
    """Scores two images, of red level 10 and 20, with an object of `FILE`."""
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    images = np.zeros((2, 8, 8, 3), np.uint8)
    images[0, ..., 0] = 10
    images[1, ..., 0] = 20

    def scored(name: str) -> Any:
        options = {"device": "cpu"} if "Weighted" in name else {}
        return make_reward(f"{path}:{name}", **options)(ImageBatch.of_uint8(images, PROMPTS))

    return scored


def test_scores_and_info_of_ddpo_pytorch(score: Callable[..., Any]) -> None:
    output = score("ddpo_pytorch")
    assert output.values.tolist() == [10.0, 20.0]
    assert output.parts["length"].tolist() == [2.0, 3.0]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("trl", [2.0, 3.0]),
        ("flow_grpo", [0.5, 0.5]),
        ("prompts_of_none", [2.0, 3.0]),
        ("texts_of_none", [2.0, 3.0]),
        ("text_option", [4.0, 4.0]),
        ("facts", [3.0, 4.0]),
        ("Weighted:weights=0.5", [1.0, 1.5]),
        ("Weighted:weights=3,power=2", [18.0, 27.0]),
        ("Plain", [10 / 3, 20 / 3]),
        ("Module", [4.0, 6.0]),
    ],
)
def test_forms_of_rewards(score: Callable[..., Any], name: str, expected: list[float]) -> None:
    assert score(name).values.tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("several", "several scores (red, blue)"),
        ("twice", "'image' and 'images' name one input"),
        ("Weighted", "needs 'weights', as in Weighted:weights=…"),
        ("NoCall", "it needs `__call__(images, prompts)`"),
        ("OldStyle", "a class attribute `card: RewardCard`"),
    ],
)
def test_errors_say_what_is_missing(score: Callable[..., Any], name: str, words: str) -> None:
    with pytest.raises((UserError, ContractBroken)) as caught:
        score(name)
    assert words in str(caught.value)


def test_the_card_of_a_class_has_its_options_and_its_docstring(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    card = resolve(f"{path}:Weighted").card
    assert (card.id, card.summary) == ("weighted", "A scale from a file.")
    assert [option.name for option in card.options] == ["weights", "device", "power"]
