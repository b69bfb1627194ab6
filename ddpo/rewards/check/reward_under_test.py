"""The reward under test with its probe images, made and scored once for all checks."""

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

from ddpo.errors import MissingResourceError
from ddpo.rewards.base import Reward
from ddpo.rewards.card import RewardCard
from ddpo.rewards.check.definition import CheckFailed, CheckSkipped
from ddpo.rewards.check.world import settings
from ddpo.rewards.fixtures import FIXTURES, draw_fixture
from ddpo.rewards.models import shared_encoders
from ddpo.rewards.scoring.resolve import ResolvedReward
from ddpo.types import ImageBatch, Prompt, RewardOutput

__all__ = ["PROBE_NAMES", "Picture", "RewardUnderTest", "tolerance_of", "unequal"]

Picture = NDArray[np.uint8]  # [height, width, 3]

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
"""One per probe picture, of different lengths, so that padding shows."""

TOLERANCES: Final = {"bfloat16": 4e-2, "float16": 1e-2, "float32": 1e-4, "float64": 1e-6}
"""By the card's dtype, as a share of the largest score: the rounding of long sums in that type.

float64 scores are returned as float32.
"""


def tolerance_of(dtype: str) -> float:
    """The share of the largest score by which two computations of one score may differ.

    Of several types in `dtype`, the least exact counts.
    """
    named = [
        TOLERANCES[name] for name in re.findall(r"\bb?float\d+\b", dtype) if name in TOLERANCES
    ]
    return max(named, default=TOLERANCES["float32"])


def unequal(found: Sequence[float], due: Sequence[float], tolerance: float) -> int | None:
    """The first place where two lists of scores differ by more than `tolerance`, or None.

    NaN equals NaN.
    """
    for place, (a, b) in enumerate(zip(found, due, strict=True)):
        if math.isnan(a) != math.isnan(b) or abs(a - b) > tolerance:
            return place
    return None


class RewardUnderTest:
    """A reward under test.

    Args:
        found: the reward.
        text: how it was named, without options; "" for an object.
        prompt: text and metadata of all probe images; by default texts of different lengths
            without metadata.
        remake: whether it can be made a second time.
    """

    def __init__(
        self,
        found: ResolvedReward,
        text: str = "",
        prompt: Prompt | None = None,
        remake: bool = True,
    ) -> None:
        self.found, self.text, self.remake = found, text, remake
        self.card: RewardCard = found.card
        self.settings_changed_by_making: Mapping[str, tuple[object, object]] = {}
        self._prompt = prompt
        self._failure: Exception | None = None

    @cached_property
    def _made(self) -> Reward:
        before = settings()
        reward = self.found.make()
        after = settings()
        self.settings_changed_by_making = {
            name: (before[name], after[name]) for name in before if before[name] != after[name]
        }
        return reward

    @property
    def reward(self) -> Reward:
        """The reward, made when first asked for.

        Raises:
            CheckSkipped: its weights are not here, or it cannot be made.
        """
        try:
            return self.make_or_raise()
        except MissingResourceError as error:
            raise CheckSkipped("something that it needs is not here, see `construction`") from error
        except Exception as error:
            raise CheckSkipped("it could not be made, see `construction`") from error

    def make_or_raise(self) -> Reward:
        """The reward, made at the first call; errors are those of `ResolvedReward.make`."""
        if self._failure is not None:
            raise self._failure
        try:
            return self._made
        except Exception as error:
            self._failure = error
            raise

    @property
    def can_remake(self) -> bool:
        """Whether another instance can be had at little cost: it has no weights to load."""
        return self.remake and not self.card.weights and not self.found.parts

    @property
    def default_options(self) -> bool:
        """True if every option has its default, for which alone the card promises scores."""
        return all(
            self.found.options.get(option.name, option.default) == option.default
            for option in self.card.options
        )

    @cached_property
    def pictures(self) -> tuple[Picture, ...]:
        """The probe pictures: the fixtures at 64×64, in the order of `PROBE_NAMES`."""
        return tuple(
            np.ascontiguousarray(picture[::STRIDE, ::STRIDE]) for picture in self.fixtures.values()
        )

    @cached_property
    def fixtures(self) -> dict[str, Picture]:
        """The fixtures at 512×512, by name."""
        return {name: draw_fixture(name) for name in PROBE_NAMES}

    @property
    def grouped(self) -> bool:
        """Whether the reward judges groups of pictures of one prompt."""
        return "group" in self.card.inputs

    @property
    def prompts(self) -> tuple[Prompt, ...]:
        """One prompt per probe picture."""
        if self._prompt is not None:
            return (self._prompt,) * len(PROBE_NAMES)
        return tuple(Prompt(TEXTS[0] if self.grouped else text) for text in TEXTS)

    def batch(
        self, pictures: Sequence[Picture], prompts: Sequence[Prompt] | None = None
    ) -> ImageBatch:
        """A batch of images of one size, by default with the first probe's prompt."""
        array = np.stack(pictures) if pictures else np.zeros((0, 64, 64, 3), np.uint8)
        return ImageBatch.of_uint8(
            array.copy(), prompts if prompts is not None else self.prompts[:1] * len(pictures)
        )

    def probes(self) -> ImageBatch:
        """A new batch of the probe pictures."""
        return self.batch(self.pictures, self.prompts)

    def score(self, batch: ImageBatch, reward: Reward | None = None) -> RewardOutput:
        """What the reward gives for a batch, without gradient.

        Raises:
            CheckFailed: it is not one float32 score per image on the CPU. Errors of the reward
                itself are passed on.
        """
        shared_encoders.forget_embeddings()  # a remembered one would hide a fault
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # what a library says about an empty batch is no news to who asked for the check
            output = (reward or self.reward)(batch)
        if not isinstance(output, RewardOutput):
            raise CheckFailed(f"returned a {type(output).__name__}, not a RewardOutput")
        if len(output) != len(batch):
            raise CheckFailed(f"returned {len(output)} scores for {len(batch)} pictures")
        if output.values.device.type != "cpu":
            raise CheckFailed(f"the scores are on {output.values.device}, not on the CPU")
        return output

    def values(self, batch: ImageBatch, reward: Reward | None = None) -> list[float]:
        """The scores of a batch; raises as `score`."""
        return [float(value) for value in self.score(batch, reward).values.tolist()]

    @cached_property
    def _known(self) -> tuple[float, ...] | None:
        try:
            return tuple(self.values(self.probes()))
        except CheckSkipped:
            raise
        except Exception:  # noqa: BLE001  # foreign code; the check `contract` tells what it was
            return None

    @property
    def scores(self) -> tuple[float, ...]:
        """The scores of the probe pictures in one batch.

        Raises:
            CheckSkipped: there are none.
        """
        if self._known is None:
            raise CheckSkipped("the probe pictures could not be scored, see `contract`")
        return self._known

    @property
    def tolerance(self) -> float:
        """By how much two computations of one score may differ, on the reward's own scale."""
        finite = [abs(score) for score in self.scores if math.isfinite(score)]
        return tolerance_of(self.card.dtype) * max(finite, default=1.0)

    def same_or_fault(
        self,
        found: Sequence[float],
        due: Sequence[float],
        what: str,
        names: Sequence[str] = PROBE_NAMES,
        tolerance: float | None = None,
    ) -> str:
        """The largest difference, in words.

        Args:
            found: scores.
            due: what they should be.
            what: words after the name of an image whose score differs, such as
                "alone instead of with the others".
            names: of the pictures.
            tolerance: by how much they may differ; the subject's if None.

        Raises:
            CheckFailed: two scores differ by more.
        """
        allowed = self.tolerance if tolerance is None else tolerance
        place = unequal(found, due, allowed)
        if place is not None:
            raise CheckFailed(
                f"{names[place]} {what}: {found[place]:.9g} instead of {due[place]:.9g} "
                f"(tolerance {allowed:.2g})"
            )
        largest = max(
            (abs(a - b) for a, b in zip(found, due, strict=True) if math.isfinite(a)), default=0.0
        )
        return f"largest difference {largest:.2g}"
