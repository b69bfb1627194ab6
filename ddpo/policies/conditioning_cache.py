"""Text conditioning that stays on the device, so that each text is encoded once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from ddpo.policies.conditioning import concatenated, size_in_bytes

__all__ = ["ConditioningCache"]

MOST_BYTES: Final = 512 * 2**20
"""Bytes on the device: 4,500 texts of Stable Diffusion 1.x in half precision, or 1,600 of XL."""


class ConditioningCache:
    """The conditioning of the most recently used texts, up to `MOST_BYTES`.

    Args:
        encode: Function from new texts to the conditioning of each, a batch of one, by text.
    """

    def __init__(self, encode: Callable[[Sequence[str]], Mapping[str, Any]]) -> None:
        self._encode = encode
        self._known: dict[str, Any] = {}  # least recently used first

    def of(self, texts: Sequence[str]) -> Any:
        """The conditioning of a batch of texts; unknown texts are encoded."""
        distinct = dict.fromkeys(texts)
        used = {text: self._known.pop(text) for text in distinct if text in self._known}
        if new := [text for text in distinct if text not in used]:
            used |= self._encode(new)
        self._known |= used
        while len(self._known) > len(used) and _bytes(self._known) > MOST_BYTES:
            del self._known[next(iter(self._known))]
        return concatenated([used[text] for text in texts])


def _bytes(texts: Mapping[str, Any]) -> int:
    """The size of the conditioning of all texts."""
    return sum(map(size_in_bytes, texts.values()))
