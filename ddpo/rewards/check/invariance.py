"""Checks that a score depends on the card's inputs, not on the batch, time or other inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from ddpo.rewards.check.definition import CheckFailed, CheckSkipped, check
from ddpo.rewards.check.reward_under_test import PROBE_NAMES, Picture, RewardUnderTest
from ddpo.rewards.check.world import random_states, restore_random_states, settings
from ddpo.types import Context, ImageBatch, Prompt

__all__ = ["CHECKS"]

LONG = Prompt("a very long text " * 10)
SIZES: Final = ((64, 64), (40, 72), (96, 33))  # height, width
BATCHES: Final = (1, 3, 16)


@check("scores")
def batch_invariance(subject: RewardUnderTest) -> str | None:
    """A score is the same alone, with the other probes, and between black, white and noise."""
    if not subject.card.batch_invariant or subject.grouped:
        raise CheckSkipped(
            "the card says that groups are judged"
            if subject.grouped
            else "the card says that it is not batch-invariant"
        )
    if not subject.card.deterministic:
        raise CheckSkipped("the card says that it is not deterministic")
    pictures, prompts, due = subject.pictures, subject.prompts, subject.scores
    alone = [
        subject.values(subject.batch([picture], [prompt]))[0]
        for picture, prompt in zip(pictures, prompts, strict=True)
    ]
    subject.same_or_fault(alone, due, "alone instead of with the others")
    mates = _strange_mates(pictures[0].shape)
    stranger = prompts[0] if subject.card.metadata or "metadata" in subject.card.inputs else LONG
    crowded = subject.batch(
        [*mates, *pictures, *mates],
        [stranger, *prompts[:1] * 2, *prompts, *prompts[:1] * 2, stranger],
    )
    found = subject.values(crowded)[len(mates) : len(mates) + len(pictures)]
    largest = subject.same_or_fault(found, due, "between black, white and noise")
    pair = subject.values(subject.batch([pictures[4], mates[0]], [prompts[4], stranger]))[:1]
    subject.same_or_fault(pair, due[4:5], "beside a black picture", PROBE_NAMES[4:5])
    return largest


def _strange_mates(shape: Sequence[int]) -> list[Picture]:
    noise = np.random.default_rng(1).integers(0, 256, shape).astype(np.uint8)
    return [np.zeros(shape, np.uint8), np.full(shape, 255, np.uint8), noise]


@check("scores")
def batch_sizes(subject: RewardUnderTest) -> str | None:
    """Batches of 1, 3 and 16 images of three sizes are scored, each image as it is alone."""
    comparable = subject.card.batch_invariant and subject.card.deterministic and not subject.grouped
    prompts = [subject.prompts[place % len(subject.prompts)] for place in range(max(BATCHES))]
    for height, width in SIZES:
        pictures = (
            np.random.default_rng(4)
            .integers(0, 256, (max(BATCHES), height, width, 3))
            .astype(np.uint8)
        )
        pictures[::2] //= 4  # every second one is dark
        due = (
            [subject.values(subject.batch([pictures[i]], [prompts[i]]))[0] for i in range(3)]
            if comparable
            else []
        )
        for count in BATCHES:
            found = subject.values(subject.batch(list(pictures[:count]), prompts[:count]))[
                : len(due)
            ]
            names = [f"picture {i} of {height}×{width}" for i in range(len(found))]
            subject.same_or_fault(found, due[: len(found)], f"in a batch of {count}", names)
    return (
        None
        if comparable
        else "scored; not compared, since the card says that a score depends on other images"
    )


@check("scores")
def repeatability(subject: RewardUnderTest) -> str | None:
    """The same images get the same scores again, after other images and from a second instance."""
    if not subject.card.deterministic:
        raise CheckSkipped("the card says that it is not deterministic")
    subject.values(subject.batch(subject.pictures[::-1], subject.prompts[::-1]))
    again = subject.values(subject.probes())
    subject.same_or_fault(again, subject.scores, "scored a second time", tolerance=0.0)
    if not subject.can_remake:
        return "a second instance was not made"
    other = subject.values(subject.probes(), subject.found.make())
    subject.same_or_fault(other, subject.scores, "scored by a second instance", tolerance=0.0)
    return None


@check("scores")
def random_state(subject: RewardUnderTest) -> str | None:
    """Making the reward and scoring change no random generator of Python, NumPy or torch."""
    before = random_states()
    subject.score(subject.probes())
    after = random_states()
    changed = [name for name in before if before[name] != after[name]]
    if changed:
        raise CheckFailed(f"scoring changes the global generator of {', '.join(changed)}")
    if subject.can_remake:
        seeded = _seeded(lambda: subject.found.make())
        if seeded:
            raise CheckFailed(f"making it seeds the global generator of {', '.join(seeded)}")
    return None


def _seeded(make: Callable[[], object]) -> list[str]:
    """The generators that come out of `make` alike from two different states."""
    import random

    import torch

    first = random_states()
    make()
    one = random_states()
    restore_random_states(first)
    random.random()  # noqa: S311
    np.random.random()  # noqa: NPY002
    torch.rand(1)
    make()
    two = random_states()
    return [name for name in one if one[name] == two[name]]


@check("scores")
def global_settings(subject: RewardUnderTest) -> str | None:
    """Making the reward and scoring leave global settings alone, such as torch's default dtype."""
    import torch

    changed: dict[str, tuple[object, object]] = dict(subject.settings_changed_by_making)
    with torch.enable_grad():  # with the mode that `torch.set_grad_enabled(False)` would change
        before = settings()
        subject.reward(subject.probes())
        after = settings()
    changed |= {name: (before[name], after[name]) for name in before if before[name] != after[name]}
    if changed:
        raise CheckFailed(
            "changes "
            + ", ".join(f"{name} from {old} to {new}" for name, (old, new) in changed.items())
        )
    return None


@check("scores")
def declared_inputs(subject: RewardUnderTest) -> str | None:
    """Only the inputs that the card lists move a score, since the cache key holds no others."""
    card = subject.card
    if not card.deterministic:
        raise CheckSkipped("the card says that it is not deterministic")
    variants: dict[str, ImageBatch] = {}
    array = np.stack(subject.pictures)
    if "prompt" not in card.inputs and not subject.grouped:
        other = [
            Prompt(f"something else, {place}", prompt.metadata)
            for place, prompt in enumerate(subject.prompts)
        ]
        variants["prompt"] = ImageBatch.of_uint8(array.copy(), other)
    if "metadata" not in card.inputs or card.metadata:
        extra = [
            Prompt(prompt.text, {**prompt.metadata, "not on the card": place})
            for place, prompt in enumerate(subject.prompts)
        ]
        variants["metadata"] = ImageBatch.of_uint8(array.copy(), extra)
    if "context" not in card.inputs:
        variants["context"] = ImageBatch.of_uint8(
            array.copy(), subject.prompts, Context(progress=0.5)
        )
    for name, batch in variants.items():
        subject.same_or_fault(
            subject.values(batch),
            subject.scores,
            f"with another {name}, which the card does not list",
        )
    return f"not moved by {', '.join(variants)}" if variants else None


CHECKS = (
    batch_invariance,
    batch_sizes,
    repeatability,
    random_state,
    global_settings,
    declared_inputs,
)
