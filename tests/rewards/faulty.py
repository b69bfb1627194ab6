"""Rewards with one planted fault each, for the tests of the conformance kit.

`Sound`, `Light` and `Words` have none; the others change one thing of them.
"""

from __future__ import annotations

import dataclasses
import math
import random
import time
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch

from ddpo.images import to_uint8
from ddpo.rewards.card import Golden, RewardCard, RewardOption
from ddpo.types import ImageBatch, RewardOutput

SOUND = RewardCard(
    id="test/sound",
    version="1",
    summary="mean of the bytes",
    load="faulty:Sound",
    family="pixels",
    flaws="white is the optimum",
    unit="levels, 0-255",
    range=(0.0, 255.0),
    thread_safe=True,
    golden=(
        Golden("black", 0.0, 0.0, "by hand"),
        Golden("grey", 128.0, 0.0, "by hand"),
        Golden("checker", 127.5, 0.0, "by hand"),
    ),
)
LIGHT = dataclasses.replace(
    SOUND,
    id="test/light",
    pixels="float",
    differentiable=True,
    range=(0.0, 1.0),
    unit="share",
    golden=(),
    load="faulty:Light",
)
WORDS = dataclasses.replace(
    SOUND,
    id="test/words",
    inputs=("image", "prompt"),
    range=(0.0, None),
    golden=(),
    load="faulty:Words",
)


def means(array: np.ndarray) -> list[float]:
    return [float(image.mean(dtype=np.float64)) for image in array]


def output(scores: Any, **more: Any) -> RewardOutput:
    return RewardOutput(torch.tensor(scores, dtype=torch.float32).reshape(-1), **more)


class Sound:
    card: RewardCard = SOUND

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        return output(means(batch.uint8))


class Light:
    card: RewardCard = LIGHT

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        return RewardOutput(batch.pixels.double().square().mean(dim=(1, 2, 3)).float())


class Words:
    """Depends on the first 77 words of the prompt, and reports truncation."""

    card: RewardCard = WORDS

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        words = [prompt.text.split() for prompt in batch.prompts]
        scores = [
            mean + sum(len(word) + ord(word[-1]) % 7 for word in w[:77])
            for mean, w in zip(means(batch.uint8), words, strict=True)
        ]
        return output(
            scores, parts={"truncated": torch.tensor([float(len(w) > 77) for w in words])}
        )


class BatchNormaliser(Sound):
    card = dataclasses.replace(SOUND, golden=())

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        scores = np.array(means(batch.uint8))
        return output(100 + 10 * (scores - (scores.mean() if len(scores) else 0)) / 128)


class OtherKernelForLargeBatches(Sound):
    def __call__(self, batch: ImageBatch) -> RewardOutput:
        return output([score * (0.9 if len(batch) > 12 else 1.0) for score in means(batch.uint8)])


class RunningNormaliser(Sound):
    def __init__(self) -> None:
        self.total = 0.0
        self.count = 1

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        scores = means(batch.uint8)
        self.total += sum(scores)
        self.count += len(scores)
        return output([score / (1 + self.total / self.count) for score in scores])


class SortedOutput(Sound):
    def __call__(self, batch: ImageBatch) -> RewardOutput:
        return output(sorted(means(batch.uint8)))


class WritesPixels(Light):
    def __call__(self, batch: ImageBatch) -> RewardOutput:
        scored = super().__call__(batch)
        if not batch.pixels.requires_grad:
            batch.pixels.mul_(0.5)
        return scored


class WritesThroughNumpy(Sound):
    def __call__(self, batch: ImageBatch) -> RewardOutput:
        scores = means(batch.uint8)
        batch.pixels.detach().numpy()[:] = 0.5  # leaves torch's version counter as it was
        return output(scores)


class WritesBytes(Sound):
    def __call__(self, batch: ImageBatch) -> RewardOutput:
        scores = means(batch.uint8)
        below = batch.uint8.base  # numpy refuses to write through the view itself
        if isinstance(below, np.ndarray):
            below[:, 0] = 0
        return output(scores)


class ShrinksImages(Sound):
    def __call__(self, batch: ImageBatch) -> RewardOutput:
        scores = means(batch.uint8)
        for image in batch.images:
            image.thumbnail((4, 4))
        return output(scores)


class WritesMetadata(Sound):
    def __call__(self, batch: ImageBatch) -> RewardOutput:
        for prompt in batch.prompts:
            for value in prompt.metadata.values():
                if isinstance(value, dict):
                    value["seen"] = True
        return output(means(batch.uint8))


class SilentZero(Sound):
    def __call__(self, batch: ImageBatch) -> RewardOutput:
        try:
            return output(means(batch.uint8))
        except Exception:
            return output([0.0] * len(batch))


class AlwaysZero(Sound):
    card = dataclasses.replace(SOUND, golden=())

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        return output([0.0] * len(batch.uint8))


class TakesTheWrongScale(Light):
    """Clips pixels to 1, so that those on a 0-255 scale get a score like any other."""

    card = dataclasses.replace(LIGHT, differentiable=False)

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        return RewardOutput(batch.pixels.detach().clamp(0, 1).mean(dim=(1, 2, 3)))


class OutOfRange(Light):
    """Scores on a scale of 0-255, where its card says 0-1."""

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        return RewardOutput((batch.pixels * 255).mean(dim=(1, 2, 3)))


class SeedsTorch(Sound):
    def __call__(self, batch: ImageBatch) -> RewardOutput:
        torch.manual_seed(0)
        return output(means(batch.uint8))


class DrawsFromNumpy(Sound):
    def __call__(self, batch: ImageBatch) -> RewardOutput:
        np.random.rand()  # noqa: NPY002
        return output(means(batch.uint8))


class SeedsWhenMade(Sound):
    def __init__(self) -> None:
        random.seed(3)


class SetsThreads(Sound):
    def __init__(self) -> None:
        torch.set_num_threads(torch.get_num_threads() + 1)


class SwitchesGradientsOff(Sound):
    def __call__(self, batch: ImageBatch) -> RewardOutput:
        torch.set_grad_enabled(False)
        return output(means(batch.uint8))


class Truncates(Sound):
    def __call__(self, batch: ImageBatch) -> RewardOutput:
        to_uint8(batch.pixels)  # refuses another scale
        return output(means((batch.pixels * 255 + 1e-3).clamp(0, 255).byte().numpy()))


class NotDeterministic(Sound):
    card = dataclasses.replace(SOUND, golden=())

    def __init__(self) -> None:
        self._random = random.Random(0)

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        return output(
            [score * self._random.uniform(1 - 1e-7, 1 - 3e-7) for score in means(batch.uint8)]
        )


class RandomWhenMade(Sound):
    card = dataclasses.replace(SOUND, golden=())
    made: ClassVar[list[int]] = []

    def __init__(self) -> None:
        self.made.append(0)
        self.gain = 1 / len(self.made)

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        return output([self.gain * score for score in means(batch.uint8)])


class SilentNaN(Sound):
    """Divides by the spread, which a grey image does not have."""

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        pairs = zip(means(batch.uint8), batch.uint8, strict=True)
        return output([score if np.ptp(image) else math.nan for score, image in pairs])


class Float64(Sound):
    def __call__(self, batch: ImageBatch) -> RewardOutput:
        return RewardOutput(torch.tensor(means(batch.uint8), dtype=torch.float64))


class ReturnsAList(Sound):
    def __call__(self, batch: ImageBatch) -> Any:
        return means(batch.uint8)


class Squeezes(Sound):
    def __call__(self, batch: ImageBatch) -> RewardOutput:
        return RewardOutput(torch.tensor(means(batch.uint8)).reshape(-1, 1).squeeze())


class NeedsOneImage(Sound):
    def __call__(self, batch: ImageBatch) -> RewardOutput:
        return output(np.stack([image.mean(dtype=np.float64) for image in batch.uint8]))


class Detaches(Light):
    def __call__(self, batch: ImageBatch) -> RewardOutput:
        return RewardOutput(super().__call__(batch).values.detach())


class HasParameters(Light):
    """The scores carry a gradient, but of its own parameter; the pixels get none."""

    def __init__(self) -> None:
        self.gain = torch.nn.Parameter(torch.ones(()))

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        return RewardOutput(self.gain * super().__call__(batch).values.detach())


class HalfAGradient(Light):
    def __call__(self, batch: ImageBatch) -> RewardOutput:
        pixels = batch.pixels
        return RewardOutput((pixels * pixels.detach()).mean(dim=(1, 2, 3)))


class GradientOfOneChannel(Light):
    def __call__(self, batch: ImageBatch) -> RewardOutput:
        pixels = torch.cat([batch.pixels[:, :1], batch.pixels[:, 1:].detach()], dim=1)
        return RewardOutput(pixels.square().mean(dim=(1, 2, 3)))


class UndeclaredGradient(Light):
    card = dataclasses.replace(LIGHT, differentiable=False)


class SharedBuffer(Sound):
    def __call__(self, batch: ImageBatch) -> RewardOutput:
        self.array = batch.uint8
        time.sleep(1e-4)  # as while a model computes; another thread comes in
        return output(means(self.array))


class WrongGolden(Sound):
    goldens = (*SOUND.golden[:2], Golden("checker", 127.6, 0.05, "by hand"))
    card = dataclasses.replace(SOUND, golden=goldens)


class UpsideDown(Sound):
    card = dataclasses.replace(SOUND, range=(-255.0, 255.0))

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        return output([-score for score in means(batch.uint8)])


class KeepsBatches(Sound):
    kept: ClassVar[list[Any]] = []

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        self.kept.append(batch.uint8)
        return output(means(batch.uint8))


class KeepsTensors(Sound):
    kept: ClassVar[list[Any]] = []

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        self.kept.append(torch.zeros(1))
        return output(means(batch.uint8))


class HiddenOption(Sound):
    def __init__(self, gain: float = 1.0) -> None:
        self.gain = gain


class OtherDefault(Sound):
    card = dataclasses.replace(
        SOUND, options=(RewardOption("gain", 2.0, ""), RewardOption("bias", 0.0, ""))
    )

    def __init__(self, gain: float = 1.0) -> None:
        self.gain = gain


class HidesTruncation(Words):
    def __call__(self, batch: ImageBatch) -> RewardOutput:
        return RewardOutput(super().__call__(batch).values)


class ReadsPrompts(Sound):
    card = dataclasses.replace(SOUND, golden=())

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        pairs = zip(means(batch.uint8), batch.prompts, strict=True)
        return output([min(255, score + len(prompt.text) / 1e3) for score, prompt in pairs])


class ReadsProgress(Sound):
    def __call__(self, batch: ImageBatch) -> RewardOutput:
        factor = 1 - (batch.context.progress or 0) / 10
        return output([score * factor for score in means(batch.uint8)])


class NeedsASquare(Sound):
    def __call__(self, batch: ImageBatch) -> RewardOutput:
        side = batch.uint8.shape[1]
        return output(means(batch.uint8.reshape(-1, side, side, 3)))


class GreyIsAnError(Sound):
    """Divides by the colour, which grey images of any mode do not have.

    Fixtures of one colour are spared, since they have golden scores.
    """

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        for image in batch.uint8:
            if image.shape[:2] == (24, 32) and not np.ptp(image, axis=-1).any():
                raise ZeroDivisionError("no colour")
        return output(means(batch.uint8))


class FailsOnUnicode(Words):
    def __call__(self, batch: ImageBatch) -> RewardOutput:
        for prompt in batch.prompts:
            prompt.text.encode("latin-1")
        return super().__call__(batch)


class ClosesOnce(Sound):
    def __init__(self) -> None:
        self._open: list[int] | None = [1]

    def close(self) -> None:
        assert self._open is not None, "closed twice"
        self._open = None


class OtherCard(Sound):
    def __init__(self) -> None:
        self.card = dataclasses.replace(SOUND, version="2")


class CannotBeMade(Sound):
    def __init__(self) -> None:
        raise KeyError("no such thing")


class BadCard(Sound):
    card = dataclasses.replace(SOUND, unit=" ", typical=(3.0, 2.0, 300.0))


class CardWithAFunction(Sound):
    card = dataclasses.replace(SOUND, typical_source=Callable)  # type: ignore[arg-type]
