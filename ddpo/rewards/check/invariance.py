"""Checks that a score depends on the card's inputs alone, not on the batch or on earlier calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import numpy as np

from ddpo.rewards.check.definition import CheckFailed, CheckSkipped, check
from ddpo.rewards.check.global_state import random_states, restore_random_states, settings
from ddpo.rewards.check.reward_under_test import PROBE_NAMES, ImageArray, RewardUnderTest
from ddpo.types import Context, ImageBatch, Prompt

__all__ = ["CHECKS"]

LONG = Prompt("a very long text " * 10)
SIZES: Final = ((64, 64), (40, 72), (96, 33))  # height, width
BATCHES: Final = (1, 3, 16)


@check("scores")
def batch_invariance(tested: RewardUnderTest) -> str | None:
    """A score does not depend on the batch.

    It is the same alone, with the other probe images, and between black, white and noise.
    """
    if tested.grouped:
        raise CheckSkipped("the card says that groups are judged")
    if not tested.card.batch_invariant:
        raise CheckSkipped("the card says that it is not batch-invariant")
    _demand_deterministic(tested)
    images = tested.images
    prompts = tested.prompts
    expected = tested.scores
    alone = _scores_alone(tested, images, prompts)
    tested.compare_scores(alone, expected, "alone instead of with the others")
    strangers = _strange_images(images[0].shape)
    needs_metadata = tested.card.metadata or "metadata" in tested.card.inputs
    stranger = prompts[0] if needs_metadata else LONG
    crowded = tested.batch(
        [*strangers, *images, *strangers],
        [stranger, *prompts[:1] * 2, *prompts, *prompts[:1] * 2, stranger],
    )
    between = tested.values(crowded)[len(strangers) : len(strangers) + len(images)]
    largest = tested.compare_scores(between, expected, "between black, white and noise")
    pair = tested.batch([images[4], strangers[0]], [prompts[4], stranger])
    beside = tested.values(pair)[:1]
    tested.compare_scores(beside, expected[4:5], "beside a black image", PROBE_NAMES[4:5])
    return largest


def _demand_deterministic(tested: RewardUnderTest) -> None:
    if not tested.card.deterministic:
        raise CheckSkipped("the card says that it is not deterministic")


def _scores_alone(
    tested: RewardUnderTest, images: Iterable[ImageArray], prompts: Iterable[Prompt]
) -> list[float]:
    """The score of each image in a batch of its own."""
    return [
        tested.values(tested.batch([image], [prompt]))[0]
        for image, prompt in zip(images, prompts, strict=True)
    ]


def _strange_images(shape: Sequence[int]) -> list[ImageArray]:
    """A black, a white and a noisy image."""
    noise = np.random.default_rng(1).integers(0, 256, shape).astype(np.uint8)
    return [np.zeros(shape, np.uint8), np.full(shape, 255, np.uint8), noise]


@check("scores")
def batch_sizes(tested: RewardUnderTest) -> str | None:
    """Batches of 1, 3 and 16 images are scored, at 64×64, 40×72 and 96×33.

    The first three images score as they do alone.
    """
    comparable = tested.card.batch_invariant and tested.card.deterministic and not tested.grouped
    prompts = [tested.prompts[place % len(tested.prompts)] for place in range(max(BATCHES))]
    for height, width in SIZES:
        shape = (max(BATCHES), height, width, 3)
        images = np.random.default_rng(4).integers(0, 256, shape).astype(np.uint8)
        images[::2] //= 4  # every second one is dark
        expected = _scores_alone(tested, images[:3], prompts[:3]) if comparable else []
        for count in BATCHES:
            scores = tested.values(tested.batch(list(images[:count]), prompts[:count]))
            compared = min(count, len(expected))
            names = [f"image {i} of {height}×{width}" for i in range(compared)]
            condition = f"in a batch of {count}"
            tested.compare_scores(scores[:compared], expected[:compared], condition, names)
    if comparable:
        return None
    return "scored; not compared, since the card says that a score depends on other images"


@check("scores")
def repeatability(tested: RewardUnderTest) -> str | None:
    """The same images get exactly the same scores again.

    They are scored after other images, and by a second instance of the reward.
    """
    _demand_deterministic(tested)
    tested.values(tested.batch(tested.images[::-1], tested.prompts[::-1]))
    again = tested.values(tested.probes())
    tested.compare_scores(again, tested.scores, "scored a second time", tolerance=0.0)
    if not tested.can_remake:
        return "a second instance was not made"
    other = tested.values(tested.probes(), tested.resolved.make())
    tested.compare_scores(other, tested.scores, "scored by a second instance", tolerance=0.0)
    return None


@check("scores")
def random_state(tested: RewardUnderTest) -> str | None:
    """Scoring leaves the global random generators of Python, NumPy and torch as they were.

    Making the reward seeds none of them.
    """
    before = random_states()
    tested.score(tested.probes())
    after = random_states()
    changed = [name for name in before if before[name] != after[name]]
    if changed:
        raise CheckFailed(f"scoring changes the global generator of {', '.join(changed)}")
    seeded = _seeded(tested.resolved.make) if tested.can_remake else []
    if seeded:
        raise CheckFailed(f"making it seeds the global generator of {', '.join(seeded)}")
    return None


def _seeded(make: Callable[[], object]) -> list[str]:
    """The generators that have the same state after `make`, from two different states before it."""
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
def global_settings(tested: RewardUnderTest) -> str | None:
    """Making the reward and scoring leave global settings as they were.

    These are torch's gradient mode, default dtype, default device and number of threads, and
    others of torch, NumPy, Pillow and Python.
    """
    import torch

    changed: dict[str, tuple[object, object]] = dict(tested.settings_changed_by_making)
    with torch.enable_grad():  # with the mode that `torch.set_grad_enabled(False)` would change
        before = settings()
        tested.reward(tested.probes())
        after = settings()
    changed |= {name: (before[name], after[name]) for name in before if before[name] != after[name]}
    if changed:
        changes = [f"{name} from {old} to {new}" for name, (old, new) in changed.items()]
        raise CheckFailed(f"changes {', '.join(changes)}")
    return None


@check("scores")
def declared_inputs(tested: RewardUnderTest) -> str | None:
    """Prompts, metadata and context move a score only if the card lists them.

    The key of a cached score holds the listed inputs and no others.
    """
    _demand_deterministic(tested)
    variants = dict(_undeclared_changes(tested))
    for name, batch in variants.items():
        condition = f"with another {name}, which the card does not list"
        tested.compare_scores(tested.values(batch), tested.scores, condition)
    return f"not moved by {', '.join(variants)}" if variants else None


def _undeclared_changes(tested: RewardUnderTest) -> Iterator[tuple[str, ImageBatch]]:
    """The probe images with another value of each input that the card does not list."""
    card = tested.card
    if "prompt" not in card.inputs and not tested.grouped:
        prompts = [
            Prompt(f"something else, {place}", prompt.metadata)
            for place, prompt in enumerate(tested.prompts)
        ]
        yield "prompt", tested.batch(tested.images, prompts)
    if "metadata" not in card.inputs or card.metadata:
        prompts = [
            Prompt(prompt.text, {**prompt.metadata, "not on the card": place})
            for place, prompt in enumerate(tested.prompts)
        ]
        yield "metadata", tested.batch(tested.images, prompts)
    if "context" not in card.inputs:
        array = np.stack(tested.images)
        yield "context", ImageBatch.of_uint8(array, tested.prompts, Context(progress=0.5))


CHECKS = (
    batch_invariance,
    batch_sizes,
    repeatability,
    random_state,
    global_settings,
    declared_inputs,
)
