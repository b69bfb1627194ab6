"""The key of a cached score: a hash of everything that the score depends on.

Nothing else enters it, neither paths nor the bytes of image files.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from ddpo.rewards.card import RewardCard
from ddpo.types import Context, ImageBatch, Prompt

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["cacheable", "image_digests", "score_key", "uncached_line"]

BYTES_DOMAIN: Final = b"ddpo picture uint8 height width 3"
FLOAT_DOMAIN: Final = b"ddpo picture float32 3 height width"
KEY_DOMAIN: Final = b"ddpo score 1"


def cacheable(card: RewardCard) -> bool:
    """True if a reward gives an image the same score each time, and its card allows caching."""
    return _reason_against(card) is None


def uncached_line(cards: Iterable[RewardCard]) -> str | None:
    """The rewards whose scores no cache keeps, each with the reason; None if there are none."""
    reasons = {card.id: _reason_against(card) for card in cards}
    found = [f"{name} ({reason})" for name, reason in reasons.items() if reason is not None]
    return f"the score cache is not used for {' and '.join(found)}" if found else None


def _reason_against(card: RewardCard) -> str | None:
    """The reason why scores of a reward are not cached; None if they are."""
    if "group" in card.inputs:
        return "it judges images together"
    if not card.deterministic:
        return "its scores change from call to call"
    if not card.batch_invariant:
        return "its scores depend on the other images of a call"
    return None if card.cache else "its card has cache=False"


def image_digests(batch: ImageBatch, exact: bool) -> list[bytes]:
    """The SHA-256 of the decoded pixels and size of every image.

    Args:
        batch: the images.
        exact: whether the reward sees floats (`card.pixels` is "float"). If so, pixels between two
            of the 256 levels are hashed as floats. All others are hashed as rounded bytes.

    Returns:
        32 bytes per image.

    Raises:
        ImageError: `exact` is False and a pixel is not in [0, 1].
    """
    if batch.from_bytes or not exact:
        return [_bytes_digest(image) for image in batch.uint8]
    return [_float_digest(image) for image in batch.pixels]


def _bytes_digest(image: NDArray[np.uint8]) -> bytes:
    import numpy as np

    height, width, _ = image.shape
    digest = hashlib.sha256(BYTES_DOMAIN + struct.pack("<QQ", height, width))
    digest.update(np.ascontiguousarray(image).data)
    return digest.digest()


def _float_digest(image: Tensor) -> bytes:
    import numpy as np
    import torch

    pixels = image.detach().cpu().contiguous()
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

    The other inputs are the prompt's text in NFC ("prompt"), the progress of training ("context"),
    and the metadata that the card names, or all of it if the card names none ("metadata"). Every
    part is preceded by its length.

    Args:
        identity: `ResolvedReward.identity`: id, version, weights, preprocessing, dtype, options,
            origin, versions of the libraries.
        digest: digest of the image, from `image_digests`.
        prompt: prompt of the image.
        card: card of the reward.
        context: context of the batch.

    Returns:
        32 bytes, or None if the score cannot be cached, since the metadata holds other than plain
        JSON values.
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
        progress = context.progress
        parts += [b"progress", b"" if progress is None else float(progress).hex().encode()]
    return hashlib.sha256(b"".join(struct.pack("<Q", len(part)) + part for part in parts)).digest()


def _is_plain(value: Any) -> bool:
    """True if JSON keeps the whole value; it turns a key 1 into "1", and has no arrays."""
    if isinstance(value, Mapping):
        return isinstance(value, dict) and all(
            isinstance(name, str) and _is_plain(part) for name, part in value.items()
        )
    if isinstance(value, list | tuple):
        return all(_is_plain(part) for part in value)
    return value is None or isinstance(value, str | int | float | bool)
