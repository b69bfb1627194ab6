"""A reward under test and its probe images, made and scored once for all checks."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from ddpo.errors import INTERRUPTS, MissingResourceError
from ddpo.rewards.base import Reward
from ddpo.rewards.card import RewardCard
from ddpo.rewards.check.definition import CheckFailed, CheckSkipped
from ddpo.rewards.check.global_state import settings
from ddpo.rewards.fixtures import FIXTURES, draw_fixture
from ddpo.rewards.models import shared_encoders
from ddpo.rewards.scoring.resolve import ResolvedReward
from ddpo.types import ImageBatch, Prompt, RewardOutput

__all__ = [
    "PROBE_NAMES",
    "ImageArray",
    "RewardUnderTest",
    "first_difference",
    "score_bounds",
    "tolerance_of",
]

ImageArray = NDArray[np.uint8]  # [height, width, 3]

PROBE_NAMES: Final = tuple(sorted(FIXTURES))
STRIDE: Final = 8  # probes are every eighth pixel of the fixtures: 64×64
TEXTS: Final = (
    "a red fox",
    "two blue cubes on a wooden table, seen from above",
    "portrait",
    "a city at night in the rain with neon lights and many people who carry umbrellas",
    "the letter A",
    "a dog riding a bicycle",
)
"""One per probe image, of different lengths, so that padding shows."""

TOLERANCES: Final = {"bfloat16": 4e-2, "float16": 1e-2, "float32": 1e-4, "float64": 1e-6}
"""Tolerances by the card's dtype, as a share of the largest score.

They cover the rounding of long sums in that type. Float64 scores are returned as float32.
"""


def tolerance_of(dtype: str) -> float:
    """The share of the largest score by which two computations of one score may differ.

    Args:
        dtype: dtype of a card; if it names several types, the least exact counts.
    """
    named = re.findall(r"\bb?float\d+\b", dtype)
    known = [TOLERANCES[name] for name in named if name in TOLERANCES]
    return max(known, default=TOLERANCES["float32"])


def score_bounds(card: RewardCard) -> tuple[float, float]:
    """The least and the largest possible score; infinite where the card states no bound."""
    low, high = card.range
    return -math.inf if low is None else low, math.inf if high is None else high


def first_difference(
    scores: Sequence[float], expected: Sequence[float], tolerance: float
) -> int | None:
    """The first place where two lists of scores differ by more than `tolerance`, or None.

    NaN equals NaN.
    """
    for place, (a, b) in enumerate(zip(scores, expected, strict=True)):
        if math.isnan(a) != math.isnan(b) or abs(a - b) > tolerance:
            return place
    return None


class RewardUnderTest:
    """A reward under test.

    Args:
        resolved: the reward.
        name: its name on the command line, without options; "" for an object.
        prompt: text and metadata of all probe images; by default texts of different lengths
            without metadata.
        remakable: true if the reward can be made a second time.
    """

    def __init__(
        self,
        resolved: ResolvedReward,
        name: str = "",
        prompt: Prompt | None = None,
        remakable: bool = True,
    ) -> None:
        self.resolved = resolved
        self.name = name
        self.remakable = remakable
        self.card: RewardCard = resolved.card
        self.settings_changed_by_making: Mapping[str, tuple[object, object]] = {}
        self.fault_reported_by: str | None = None  # name of the check that reports a broken reward
        self._prompt = prompt
        self._failure: BaseException | None = None

    @cached_property
    def _made(self) -> Reward:
        before = settings()
        reward = self.resolved.make()
        after = settings()
        self.settings_changed_by_making = {
            name: (before[name], after[name]) for name in before if before[name] != after[name]
        }
        return reward

    @property
    def reward(self) -> Reward:
        """The reward, made at the first access.

        Raises:
            CheckSkipped: the reward cannot be made, for instance since its weights are not here.
        """
        try:
            return self.make_or_raise()
        except MissingResourceError as error:
            raise CheckSkipped("something that it needs is not here, see `construction`") from error
        except INTERRUPTS:
            raise
        except BaseException as error:
            self.fault_reported_by = "construction"
            raise CheckSkipped("it could not be made, see `construction`") from error

    def make_or_raise(self) -> Reward:
        """The reward, made at the first call; raises as `ResolvedReward.make`."""
        if self._failure is not None:
            raise self._failure
        try:
            return self._made
        except INTERRUPTS:
            raise
        except BaseException as error:
            self._failure = error
            raise

    @property
    def can_remake(self) -> bool:
        """True if another instance costs little, since there are no weights to load."""
        return self.remakable and not self.card.weights and not self.resolved.parts

    @property
    def default_options(self) -> bool:
        """True if every option has its default; the card promises scores for these alone."""
        options = self.resolved.options
        defaults = {option.name: option.default for option in self.card.options}
        return all(options.get(name, default) == default for name, default in defaults.items())

    @cached_property
    def images(self) -> tuple[ImageArray, ...]:
        """The probe images: the fixtures at 64×64, in the order of `PROBE_NAMES`."""
        return tuple(
            np.ascontiguousarray(image[::STRIDE, ::STRIDE]) for image in self.fixtures.values()
        )

    @cached_property
    def fixtures(self) -> dict[str, ImageArray]:
        """The fixtures at 512×512, by name."""
        return {name: draw_fixture(name) for name in PROBE_NAMES}

    @property
    def grouped(self) -> bool:
        """True if the reward judges groups of images of one prompt."""
        return "group" in self.card.inputs

    @property
    def prompts(self) -> tuple[Prompt, ...]:
        """One prompt per probe image; those of `probe_prompts` if the reward has them."""
        if self._prompt is not None:
            return (self._prompt,) * len(PROBE_NAMES)
        texts: Sequence[str] = getattr(self.reward, "probe_prompts", TEXTS)
        names = range(len(PROBE_NAMES))
        return tuple(Prompt(texts[0 if self.grouped else place % len(texts)]) for place in names)

    def batch(
        self, images: Sequence[ImageArray], prompts: Sequence[Prompt] | None = None
    ) -> ImageBatch:
        """A batch of images of one size, by default with the first probe's prompt."""
        array = np.stack(images) if images else np.zeros((0, 64, 64, 3), np.uint8)
        if prompts is None:
            prompts = self.prompts[:1] * len(images)
        return ImageBatch.of_uint8(array.copy(), prompts)

    def probes(self) -> ImageBatch:
        """A new batch of the probe images."""
        return self.batch(self.images, self.prompts)

    def score(self, batch: ImageBatch, reward: Reward | None = None) -> RewardOutput:
        """The reward's output for a batch, without gradient.

        Args:
            batch: images and prompts.
            reward: the instance to call; by default that of `reward`.

        Raises:
            CheckFailed: the output is not one float32 score per image on the CPU. Errors of the
                reward itself are passed on.
        """
        shared_encoders.forget_embeddings()  # a remembered one would hide a fault
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as a library's about an empty batch
            output = (reward or self.reward)(batch)
        if not isinstance(output, RewardOutput):
            raise CheckFailed(f"returned a {type(output).__name__}, not a RewardOutput")
        if len(output) != len(batch):
            raise CheckFailed(f"returned {len(output)} scores for {len(batch)} images")
        if output.values.device.type != "cpu":
            raise CheckFailed(f"the scores are on {output.values.device}, not on the CPU")
        return output

    def values(self, batch: ImageBatch, reward: Reward | None = None) -> list[float]:
        """The scores of a batch as numbers; raises as `score`."""
        return [float(value) for value in self.score(batch, reward).values.tolist()]

    @cached_property
    def _known(self) -> tuple[float, ...] | None:
        try:
            return tuple(self.values(self.probes()))
        except (CheckSkipped, *INTERRUPTS):
            raise
        except BaseException:  # noqa: BLE001  # reported by the check `contract`
            return None

    @property
    def scores(self) -> tuple[float, ...]:
        """The scores of the probe images in one batch.

        Raises:
            CheckSkipped: the reward raises an error for them.
        """
        if self._known is None:
            self.fault_reported_by = "contract"
            raise CheckSkipped("the probe images could not be scored, see `contract`")
        return self._known

    @property
    def tolerance(self) -> float:
        """The largest rounding error of a score, on the reward's own scale."""
        finite = [abs(score) for score in self.scores if math.isfinite(score)]
        return tolerance_of(self.card.dtype) * max(finite, default=1.0)

    def compare_scores(
        self,
        scores: Sequence[float],
        expected: Sequence[float],
        condition: str,
        names: Sequence[str] = PROBE_NAMES,
        tolerance: float | None = None,
    ) -> str:
        """One line with the largest difference between scores and expected scores.

        Args:
            scores: scores of some images.
            expected: scores that they should have.
            condition: words after the name of an image whose score differs, such as
                "alone instead of with the others".
            names: names of the images.
            tolerance: largest difference that is allowed; by default `self.tolerance`.

        Raises:
            CheckFailed: two scores differ by more.
        """
        allowed = self.tolerance if tolerance is None else tolerance
        place = first_difference(scores, expected, allowed)
        if place is not None:
            difference = f"{scores[place]:.9g} instead of {expected[place]:.9g}"
            raise CheckFailed(f"{names[place]} {condition}: {difference} (tolerance {allowed:.2g})")
        pairs = zip(scores, expected, strict=True)
        largest = max((abs(a - b) for a, b in pairs if math.isfinite(a)), default=0.0)
        return f"largest difference {largest:.2g}"
