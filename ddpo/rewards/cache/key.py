"""The key of a cached score: a hash of all that the score depends on, and of nothing else.

Paths and the bytes of image files never enter it.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from ddpo.rewards.card import RewardCard
from ddpo.types import Context, ImageBatch, Prompt

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["cacheable", "image_digests", "score_key"]

BYTES_DOMAIN: Final = b"ddpo picture uint8 height width 3"
FLOAT_DOMAIN: Final = b"ddpo picture float32 3 height width"
KEY_DOMAIN: Final = b"ddpo score 1"


def cacheable(card: RewardCard) -> bool:
    """True if a score of this reward is the same each time, and worth looking up."""
    return card.cache and card.deterministic and card.batch_invariant and "group" not in card.inputs


def image_digests(batch: ImageBatch, exact: bool) -> list[bytes]:
    """The SHA-256 of the decoded pixels and size of every image.

    Args:
        batch: the images.
        exact: whether the reward sees floats (`card.pixels` is "float"). Pixels between two of the
            256 levels then count as they are. Otherwise, and for pixels exactly on the levels, the
            digest is that of the rounded bytes.

    Returns:
        32 bytes per image.

    Raises:
        ImageError: `exact` is False and a pixel is not in [0, 1].
    """
    if batch.from_bytes or not exact:
        return [_bytes_digest(picture) for picture in batch.uint8]
    return [_float_digest(picture) for picture in batch.pixels]


def _bytes_digest(picture: NDArray[np.uint8]) -> bytes:
    import numpy as np

    height, width, _ = picture.shape
    digest = hashlib.sha256(BYTES_DOMAIN + struct.pack("<QQ", height, width))
    digest.update(np.ascontiguousarray(picture).data)
    return digest.digest()


def _float_digest(picture: Tensor) -> bytes:
    import numpy as np
    import torch

    pixels = picture.detach().cpu().contiguous()
    levels = (pixels * 255.0).round_().clamp_(0.0, 255.0).to(torch.uint8)
    # bits, not values: -0.0 equals 0.0, and a reward that sees floats may tell them apart
    if torch.equal((levels.to(torch.float32) / 255.0).view(torch.int32), pixels.view(torch.int32)):
        return _bytes_digest(levels.permute(1, 2, 0).numpy())
    _, height, width = pixels.shape
    digest = hashlib.sha256(FLOAT_DOMAIN + struct.pack("<QQ", height, width))
    digest.update(np.ascontiguousarray(pixels.numpy(), dtype="<f4").data)
    return digest.digest()


def score_key(
    identity: str, digest: bytes, prompt: Prompt, card: RewardCard, context: Context
) -> bytes | None:
    """The SHA-256 of the reward's identity, the image, and the other inputs that the card names.

    These are the prompt's text (in NFC) if "prompt" is among the card's inputs, and the training's
    progress if "context" is. Of the metadata they are the names on the card, or all if the card
    takes metadata and names none. Every part is preceded by its length.

    Args:
        identity: `ResolvedReward.identity`: id, version, weights, preprocessing, dtype, options,
            origin, versions of the libraries.
        digest: the image's digest, from `image_digests`.
        prompt: the image's prompt.
        card: the reward's card.
        context: the batch's context.

    Returns:
        32 bytes; None if the metadata holds anything but plain JSON values, so that the score
        cannot be cached.
    """
    parts = [KEY_DOMAIN, identity.encode("utf-8", "surrogatepass"), digest]
    if "prompt" in card.inputs:
        parts += [b"prompt", prompt.text.encode("utf-8", "surrogatepass")]
    if card.metadata or "metadata" in card.inputs:
        declared = {
            name: prompt.metadata[name]
            for name in card.metadata or prompt.metadata
            if name in prompt.metadata
        }
        if not _is_plain(declared):
            return None
        parts += [b"metadata", json.dumps(declared, sort_keys=True, separators=(",", ":")).encode()]
    if "context" in card.inputs:
        parts += [
            b"progress",
            b"" if context.progress is None else float(context.progress).hex().encode(),
        ]
    return hashlib.sha256(b"".join(struct.pack("<Q", len(part)) + part for part in parts)).digest()


def _is_plain(value: Any) -> bool:
    """True if JSON keeps the whole value: it would turn a key 1 into "1", and has no arrays."""
    if isinstance(value, Mapping):
        return isinstance(value, dict) and all(
            isinstance(name, str) and _is_plain(part) for name, part in value.items()
        )
    if isinstance(value, list | tuple):
        return all(_is_plain(part) for part in value)
    return value is None or isinstance(value, str | int | float | bool)
