"""A pair of images of one prompt, one of each model, and where its images are."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from ddpo.images import load_image, pixels_sha256
from ddpo.io.fields import COUNT, DIGEST, SHORT, Fields, Maybe

__all__ = ["PAIR", "LabelPair", "digest_of_file"]

PAIR: Final[Fields] = {
    "prompt": Maybe(str),
    "split": SHORT,
    "index": COUNT,
    "model_a": SHORT,
    "model_b": SHORT,
    "identity_a": SHORT,
    "identity_b": SHORT,
    "image_a": SHORT,
    "image_b": SHORT,
    "sha256_a": DIGEST,
    "sha256_b": DIGEST,
}
"""A pair in the journal."""


@dataclass(frozen=True, slots=True)
class LabelPair:
    """Two images to choose from.

    Attributes:
        prompt: text of both images; None if it is not known.
        split: prompt list of an evaluation; "" outside one.
        index: number of the image among those of its prompt.
        model_a: first model, such as "base"; never shown to a rater.
        model_b: second model.
        identity_a: digest of the first checkpoint's weights; "" for a base model or a folder.
        identity_b: digest of the second checkpoint's weights; "" for a folder.
        image_a: file of the first image, relative to the folder of the preference file or absolute.
        image_b: file of the second image.
        sha256_a: digest of the first image's pixels.
        sha256_b: digest of the second image's pixels.
    """

    prompt: str | None
    split: str
    index: int
    model_a: str
    model_b: str
    identity_a: str
    identity_b: str
    image_a: str
    image_b: str
    sha256_a: str
    sha256_b: str

    @property
    def key(self) -> str:
        """Sixteen hexadecimal digits of the prompt, the pixels, and the models."""
        facts = (
            *(self.prompt or "", self.sha256_a, self.sha256_b),
            *(self.model_a, self.model_b, self.identity_a, self.identity_b),
        )
        return hashlib.sha256("\0".join(facts).encode("utf-8", "replace")).hexdigest()[:16]

    @property
    def models(self) -> tuple[str, str, str, str]:
        """The comparison that the pair belongs to."""
        return self.model_a, self.model_b, self.identity_a, self.identity_b

    def files(self, folder: Path) -> tuple[Path, Path]:
        """The paths of both images.

        Args:
            folder: folder of the preference file.
        """
        return folder / self.image_a, folder / self.image_b

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LabelPair:
        """The pair of `to_dict`; other names are ignored."""
        known: dict[str, Any] = {name: values.get(name) for name in cls.__dataclass_fields__}
        return cls(**known)


def digest_of_file(path: Path) -> str:
    """SHA-256 of the pixels of an image file, as the image store's.

    Raises:
        ImageError: the file is missing or damaged.
    """
    return pixels_sha256(np.asarray(load_image(path)))
