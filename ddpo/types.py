"""The nouns that cross rooms. Tensors carry their axes in comments; torch itself is not imported here."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ddpo.errors import ImageError, RewardFailure

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ImageBatch", "Prompt", "RewardOutput", "Rollout", "Trajectory"]


@dataclass(frozen=True, slots=True)
class Prompt:
    """A text to condition on, with whatever a reward may need to judge the picture.

    `metadata` holds plain JSON values (for instance the questions and answers of a visual question answering reward).
    """

    text: str
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits of the SHA-256 of the NFC text: the same on every machine, whatever list it came from."""
        return hashlib.sha256(unicodedata.normalize("NFC", self.text).encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class ImageBatch:
    """RGB pictures of one size and the prompts that they were made from.

    Raises:
        ImageError: the pixels are not float32 `[batch, 3, height, width]`, or their number is not that of the prompts.
    """

    pixels: Tensor  # float32 [0, 1], sRGB, batch 3 height width
    prompts: tuple[Prompt, ...]  # length batch

    def __post_init__(self) -> None:
        shape = tuple(self.pixels.shape)
        if len(shape) != 4 or shape[1] != 3 or str(self.pixels.dtype) != "torch.float32":
            raise ImageError(f"pixels must be float32 [batch, 3, height, width], got {self.pixels.dtype} {list(shape)}")
        if len(self.prompts) != shape[0]:
            raise ImageError(f"{shape[0]} images came with {len(self.prompts)} prompts")

    def __len__(self) -> int:
        return len(self.prompts)

    def __getitem__(self, index: slice) -> ImageBatch:
        return ImageBatch(self.pixels[index], self.prompts[index])


@dataclass(frozen=True, slots=True)
class RewardOutput:
    """One score per picture, on the reward's own scale; NaN with a reason where a picture could not be scored.

    Raises:
        RewardFailure: the shapes do not agree, a value is infinite, or a NaN has no reason.
    """

    values: Tensor  # float32 [batch]
    parts: Mapping[str, Tensor] = field(default_factory=dict)  # name → float32 [batch], for logs only
    errors: tuple[str | None, ...] = ()  # length batch; () stands for "no errors"

    def __post_init__(self) -> None:
        if self.values.ndim != 1 or str(self.values.dtype) != "torch.float32":
            raise RewardFailure(f"values must be float32 [batch], got {self.values.dtype} {list(self.values.shape)}")
        if not self.errors:
            object.__setattr__(self, "errors", (None,) * len(self.values))
        if len(self.errors) != len(self.values):
            raise RewardFailure(f"{len(self.values)} values came with {len(self.errors)} errors")
        for name, part in self.parts.items():
            if tuple(part.shape) != tuple(self.values.shape):
                raise RewardFailure(f"part {name!r} has shape {list(part.shape)}, the values {list(self.values.shape)}")
        for index, (value, error) in enumerate(zip(self.values.tolist(), self.errors, strict=True)):
            if value in (float("inf"), float("-inf")):
                raise RewardFailure(f"the score of image {index} is {value}")
            if (value != value) != (error is not None):
                raise RewardFailure(
                    f"image {index}: a NaN needs a reason in `errors`"
                    if error is None
                    else f"image {index} has both a score and the error {error!r}"
                )

    def __len__(self) -> int:
        return len(self.errors)


@dataclass(frozen=True, slots=True)
class Trajectory:
    """The denoising paths of a batch: everything that is needed to score them again under another policy."""

    latents: Tensor  # storage dtype, batch steps+1 channel height width: x_T … x_0
    log_probs: Tensor  # float32 [batch, steps], mean over channel, height and width, when sampled


@dataclass(frozen=True, slots=True)
class Rollout:
    """One iteration's trajectories, pictures and rewards."""

    trajectory: Trajectory
    images: ImageBatch
    rewards: RewardOutput
