"""The scorer holds rewards to their contract."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from ddpo.errors import ConfigError, MissingResourceError, RewardFailure
from ddpo.rewards.card import RewardCard
from ddpo.rewards.scorer import Scorer
from ddpo.types import ImageBatch, Prompt, RewardOutput

NAN = float("nan")


class Scripted:
    """A reward whose answer is given by a function of the batch."""

    card = RewardCard(id="scripted", version="1", summary="", load="here:Scripted", family="test", flaws="")

    def __init__(self, answer: Callable[[ImageBatch], Any]) -> None:
        self.answer = answer
        self.sizes: list[int] = []

    def __call__(self, batch: ImageBatch) -> Any:
        self.sizes.append(len(batch))
        return self.answer(batch)


def batch(count: int) -> ImageBatch:
    """Picture i has the value i / 100 everywhere."""
    pixels = (torch.arange(count) / 100).reshape(-1, 1, 1, 1).expand(count, 3, 2, 2).contiguous()
    return ImageBatch(pixels, tuple(Prompt(str(i)) for i in range(count)))


def first_pixel(images: ImageBatch) -> RewardOutput:
    values = images.pixels[:, 0, 0, 0]
    return RewardOutput(values, {"double": 2 * values})


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_order_and_parts_survive_any_batch_size(batch_size: int) -> None:
    reward = Scripted(first_pixel)
    output = Scorer(reward, batch_size).score(batch(7))
    assert output.values.tolist() == pytest.approx([i / 100 for i in range(7)])
    assert output.parts["double"].tolist() == pytest.approx([i / 50 for i in range(7)])
    assert sum(reward.sizes) == 7
    assert max(reward.sizes) <= batch_size


def test_prompts_go_with_their_pictures() -> None:
    reward = Scripted(lambda images: RewardOutput(torch.tensor([float(p.text) for p in images.prompts])))
    assert Scorer(reward, 2).score(batch(5)).values.tolist() == [0, 1, 2, 3, 4]


def test_reasons_stay_at_their_places() -> None:
    def odd_fails(images: ImageBatch) -> RewardOutput:
        odd = [int(p.text) % 2 == 1 for p in images.prompts]
        return RewardOutput(torch.tensor([NAN if o else 1.0 for o in odd]), errors=tuple("odd" if o else None for o in odd))

    output = Scorer(Scripted(odd_fails), 2).score(batch(5))
    assert output.errors == (None, "odd", None, "odd", None)
    assert torch.isnan(output.values).tolist() == [False, True, False, True, False]


def test_empty_batch_has_no_scores() -> None:
    reward = Scripted(first_pixel)
    assert len(Scorer(reward).score(batch(0))) == 0
    assert reward.sizes == []


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda b: [0.0] * len(b), "returned a list, not a RewardOutput"),
        (lambda b: torch.zeros(len(b)), "returned a Tensor, not a RewardOutput"),
        (lambda b: RewardOutput(torch.zeros(len(b) + 1)), "returned 4 scores for 3 images"),
        (lambda b: RewardOutput(torch.zeros(len(b), dtype=torch.float64)), "must be float32"),
        (lambda b: RewardOutput(torch.zeros(len(b), 1)), r"must be float32 \[batch\]"),
        (lambda b: RewardOutput(torch.full((len(b),), NAN)), "a NaN needs a reason"),
        (lambda b: RewardOutput(torch.full((len(b),), float("inf"))), "the score of image 0 is inf"),
        (lambda b: 1 / 0, "ZeroDivisionError: division by zero"),
        (lambda b: {}["key"], "KeyError: 'key'"),
    ],
)
def test_broken_contract_is_one_line_with_the_name(answer: Callable[[ImageBatch], Any], message: str) -> None:
    with pytest.raises(RewardFailure, match=message) as caught:
        Scorer(Scripted(answer)).score(batch(3))
    assert "'scripted'" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_many_lines_become_one() -> None:
    def fail(_: ImageBatch) -> RewardOutput:
        raise RuntimeError("first\n  second")

    with pytest.raises(RewardFailure, match="RuntimeError: first second") as caught:
        Scorer(Scripted(fail)).score(batch(1))
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_user_errors_and_interrupts_pass_through() -> None:
    def missing(_: ImageBatch) -> RewardOutput:
        raise MissingResourceError("weights")

    def interrupt(_: ImageBatch) -> RewardOutput:
        raise KeyboardInterrupt

    with pytest.raises(MissingResourceError):
        Scorer(Scripted(missing)).score(batch(1))
    with pytest.raises(KeyboardInterrupt):
        Scorer(Scripted(interrupt)).score(batch(1))


def test_parts_that_change_between_batches_are_refused() -> None:
    reward = Scripted(lambda images: RewardOutput(torch.zeros(len(images)), {f"p{images.prompts[0].text}": torch.zeros(len(images))}))
    with pytest.raises(RewardFailure, match="other parts"):
        Scorer(reward, 1).score(batch(2))


def test_scores_carry_no_gradient() -> None:
    images = batch(2)
    images.pixels.requires_grad_()
    assert not Scorer(Scripted(first_pixel)).score(images).values.requires_grad


def test_batch_size_below_one_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        Scorer(Scripted(first_pixel), 0)
