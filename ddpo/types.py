"""The types shared by all packages: prompts, image batches, rewards and trajectories.

Tensors carry their axes in comments; torch itself is not imported here.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from ddpo.errors import ContractBroken, ImageError, PromptError, RewardFailure

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image
    from torch import Tensor

__all__ = ["NO_CONTEXT", "Context", "ImageBatch", "Prompt", "RewardOutput", "Rollout", "Trajectory"]


@dataclass(frozen=True, slots=True)
class Prompt:
    """A text to condition on, with the metadata a reward may need to judge the image.

    `metadata` holds plain JSON values, such as the questions and answers of a
    visual-question-answering reward.

    Raises:
        PromptError: The text holds half a surrogate pair (half an emoji) or undecodable bytes.
    """

    text: str  # normalised to NFC
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if broken := re.search("[\ud800-\udfff]", self.text):
            place = f"U+{ord(broken[0]):04X}, at character {broken.start() + 1}"
            raise PromptError(
                f"the prompt {self.text!r} is not text: it holds half a character ({place})"
            )
        object.__setattr__(self, "text", unicodedata.normalize("NFC", self.text))
        try:
            self.text.encode()
        except UnicodeEncodeError as error:
            shown = ascii(self.text[:60])
            raise PromptError(
                f"half a surrogate pair in the prompt {shown}, such as half an emoji"
            ) from error

    @property
    def id(self) -> str:
        """The first twelve hexadecimal digits of the SHA-256 of the text.

        They are the same on every machine and in every prompt list.
        """
        return hashlib.sha256(self.text.encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class Context:
    """The state of training at scoring time, for rewards whose card lists "context" as an input."""

    progress: float | None = None  # share of training that is done, 0 … 1; None outside training


NO_CONTEXT: Final = Context()


class ImageBatch:
    """RGB images of one size, with the prompts they were generated from; a read-only value.

    A batch holds float pixels or, through `of_uint8` and `of_images`, bytes. Other forms are
    computed at first use and kept.

    Args:
        pixels: float32 `[batch, 3, height, width]` in [0, 1], sRGB.
        prompts: One prompt per image.
        context: State of training at scoring time.

    Raises:
        ImageError: The pixels have another type or shape, or are not one per prompt.
    """

    __slots__ = ("_images", "_pixels", "_uint8", "context", "from_bytes", "prompts")

    prompts: tuple[Prompt, ...]
    context: Context
    from_bytes: bool  # True if `uint8` represents the pixels exactly

    def __init__(
        self, pixels: Tensor, prompts: Sequence[Prompt], context: Context = NO_CONTEXT
    ) -> None:
        shape = tuple(pixels.shape)
        if len(shape) != 4 or shape[1] != 3 or str(pixels.dtype) != "torch.float32":
            found = f"{pixels.dtype} {list(shape)}"
            raise ImageError(f"pixels must be float32 [batch, 3, height, width], got {found}")
        self._pixels: Tensor | None = pixels
        self._uint8: NDArray[np.uint8] | None = None
        self._images: list[Image.Image] | None = None
        self.from_bytes = False
        self._take(shape[0], prompts, context)

    @classmethod
    def of_uint8(
        cls, array: NDArray[np.uint8], prompts: Sequence[Prompt], context: Context = NO_CONTEXT
    ) -> ImageBatch:
        """The batch of uint8 images `[batch, height, width, 3]`; raises as the constructor."""
        if str(array.dtype) != "uint8" or array.ndim != 4 or array.shape[-1] != 3:
            raise ImageError(
                f"expected uint8 [batch, height, width, 3], got {array.dtype} {list(array.shape)}"
            )
        batch = cls._of_bytes()
        batch._uint8 = _read_only(array)
        batch._take(len(array), prompts, context)
        return batch

    @classmethod
    def off_device(
        cls, pixels: Tensor, prompts: Sequence[Prompt], levels: bool, context: Context = NO_CONTEXT
    ) -> ImageBatch:
        """The batch in main memory, from pixels on any device.

        Args:
            pixels: float32 `[batch, 3, height, width]` in [0, 1].
            prompts: One prompt per image.
            levels: True if 256 levels are enough; an accelerator then sends bytes, not floats.
            context: State of training at scoring time.

        Raises:
            ImageError: As the constructor; with `levels` also for a pixel outside [0, 1].
        """
        if levels and pixels.device.type != "cpu":
            from ddpo.images import to_uint8

            return cls.of_uint8(to_uint8(pixels), prompts, context)
        return cls(pixels.cpu(), prompts, context)

    @classmethod
    def of_images(
        cls, images: Sequence[Image.Image], prompts: Sequence[Prompt], context: Context = NO_CONTEXT
    ) -> ImageBatch:
        """The batch of at least one RGB image, all of one size; raises as the constructor."""
        forms = {(image.mode, image.size) for image in images}
        if len(forms) != 1 or images[0].mode != "RGB":
            raise ImageError(f"expected RGB images of one size, got {sorted(forms)}")
        batch = cls._of_bytes()
        batch._images = list(images)
        batch._take(len(images), prompts, context)
        return batch

    @classmethod
    def _of_bytes(cls) -> ImageBatch:
        """A batch without pixels yet, which will come from bytes."""
        batch = cls.__new__(cls)
        batch._pixels = None
        batch._uint8 = None
        batch._images = None
        batch.from_bytes = True
        return batch

    def _take(self, count: int, prompts: Sequence[Prompt], context: Context) -> None:
        if len(prompts) != count:
            raise ImageError(f"{count} images came with {len(prompts)} prompts")
        self.prompts = tuple(prompts)
        self.context = context

    @property
    def pixels(self) -> Tensor:
        """float32 `[batch, 3, height, width]` in [0, 1]."""
        if self._pixels is None:
            from ddpo.images import floats_of, from_uint8

            if self._uint8 is None and self._images is not None:
                self._pixels = floats_of(self._images)
            else:
                self._pixels = from_uint8(self.uint8)
        return self._pixels

    @property
    def uint8(self) -> NDArray[np.uint8]:
        """uint8 `[batch, height, width, 3]`, read-only, rounded as `ddpo.images.to_uint8` does.

        Raises:
            ImageError: A pixel is outside [0, 1].
        """
        if self._uint8 is None:
            from ddpo.images import from_images, to_uint8

            self._uint8 = _read_only(
                to_uint8(self.pixels) if self._images is None else from_images(self._images)
            )
        return self._uint8

    @property
    def images(self) -> list[Image.Image]:
        """The RGB images of Pillow with the pixels of `uint8`.

        Raises:
            ImageError: A pixel is outside [0, 1].
        """
        if self._images is None:
            from PIL import Image

            self._images = [Image.fromarray(image) for image in self.uint8]
        return self._images

    def __len__(self) -> int:
        return len(self.prompts)

    def __repr__(self) -> str:
        height, width = self.size
        return f"<{len(self)} images of {width}×{height} pixels: {_texts(self.prompts)}>"

    def _repr_html_(self) -> str:
        from ddpo.thumbnails import strip_html

        return strip_html(self.images, [prompt.text for prompt in self.prompts])

    def __getitem__(self, index: slice) -> ImageBatch:
        return self._part(index, self.prompts[index])

    def take(self, indices: Sequence[int]) -> ImageBatch:
        """The images at `indices`, in that order."""
        return self._part(list(indices), tuple(self.prompts[index] for index in indices))

    def _part(self, index: Any, prompts: tuple[Prompt, ...]) -> ImageBatch:
        part = ImageBatch.__new__(ImageBatch)
        part._pixels = None if self._pixels is None else self._pixels[index]
        part._uint8 = None if self._uint8 is None else _read_only(self._uint8[index])
        some = range(len(self))[index] if isinstance(index, slice) else index
        part._images = None if self._images is None else [self._images[place] for place in some]
        part.prompts = prompts
        part.context = self.context
        part.from_bytes = self.from_bytes
        return part

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        if self._images is not None:
            return self._images[0].height, self._images[0].width
        shape = self._uint8.shape[1:3] if self._uint8 is not None else self.pixels.shape[2:]
        return int(shape[0]), int(shape[1])

    @property
    def edits(self) -> int:
        """Number of in-place changes of the float pixels; a reward must not raise it."""
        if self._pixels is None or self._pixels.is_inference():  # the latter have no counter
            return 0
        return int(self._pixels._version)


def _texts(prompts: Sequence[Prompt]) -> str:
    """The first different prompts, shortened, and the number of the others."""
    texts = list(dict.fromkeys(prompt.text for prompt in prompts))
    shown = ", ".join(repr(text if len(text) <= 40 else f"{text[:39]}…") for text in texts[:3])
    return f"{shown} and {len(texts) - 3} more" if len(texts) > 3 else shown


def _read_only(array: NDArray[np.uint8]) -> NDArray[np.uint8]:
    view = array.view()
    view.flags.writeable = False
    return view


@dataclass(frozen=True, slots=True)
class RewardOutput:
    """One score per image on the reward's own scale; NaN with a reason for an unscorable image.

    Raises:
        ContractBroken: The values have another type, or shapes disagree.
        RewardFailure: A value is infinite, or a NaN has no reason.
    """

    values: Tensor  # float32 [batch]
    # Name → float32 [batch], for logs only.
    parts: Mapping[str, Tensor] = field(default_factory=dict)
    errors: tuple[str | None, ...] = ()  # length batch; () stands for "no errors"
    # Filled in by the scorer: places where the reward failed, rather than found no score.
    failed: frozenset[int] = frozenset()
    unavailable: frozenset[int] = frozenset()  # of these, where its back end did not answer

    def __post_init__(self) -> None:
        if self.values.ndim != 1 or str(self.values.dtype) != "torch.float32":
            raise ContractBroken(
                f"values must be float32 [batch], got {self.values.dtype} {list(self.values.shape)}"
            )
        if not self.errors:
            object.__setattr__(self, "errors", (None,) * len(self.values))
        if len(self.errors) != len(self.values):
            raise ContractBroken(f"{len(self.values)} values came with {len(self.errors)} errors")
        for name, part in self.parts.items():
            if tuple(part.shape) != tuple(self.values.shape):
                shapes = f"{list(part.shape)}, the values {list(self.values.shape)}"
                raise ContractBroken(f"part {name!r} has shape {shapes}")
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
    """The denoising paths of a batch, from which another policy computes their likelihood."""

    # Storage dtype [batch, steps + 1, channel, height, width]: x_T … x_0, or x_0 alone where a
    # rollout keeps no paths.
    latents: Tensor
    # float32 [batch, steps], mean over channel, height and width, under the sampling policy.
    log_probs: Tensor


@dataclass(frozen=True, slots=True)
class Rollout:
    """One iteration's trajectories, prompts and rewards."""

    trajectory: Trajectory
    prompts: tuple[Prompt, ...]
    rewards: RewardOutput
