"""One cached score as a row of the database: packed to the bit, with a checksum, so that a damaged row is a miss and not a wrong score."""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

__all__ = ["CachedScore", "pack", "unpack"]


class CachedScore(NamedTuple):
    """A score and its named parts, all float32 values."""

    value: float
    parts: Mapping[str, float]


def pack(key: bytes, score: CachedScore) -> tuple[bytes, bytes, bytes] | None:
    """Value, parts and checksum of a score as bytes; None if one of its numbers is NaN, infinite or too large for float32."""
    numbers = [score.value, *score.parts.values()]
    if not all(math.isfinite(number) for number in numbers):
        return None
    try:
        packed = struct.pack(f"<{len(numbers)}f", *numbers)
    except OverflowError:
        return None
    parts = (
        struct.pack("<I", len(score.parts)) + packed[4:] + json.dumps(list(score.parts)).encode()
        if score.parts
        else b""
    )
    return packed[:4], parts, _checksum(key, packed[:4], parts)


def unpack(key: bytes, value: Any, parts: Any, checksum: Any) -> CachedScore | None:
    """The score of a row that was asked for by `key`; None if the row is not what `pack` made for that key."""
    if not (
        isinstance(value, bytes)
        and isinstance(parts, bytes)
        and len(value) == 4
        and _checksum(key, value, parts) == checksum
    ):
        return None
    score: float = struct.unpack("<f", value)[0]
    if not parts:
        return CachedScore(score, {})
    count: int = struct.unpack_from("<I", parts)[0]
    names: list[str] = json.loads(parts[4 + 4 * count :])
    return CachedScore(
        score, dict(zip(names, struct.unpack_from(f"<{count}f", parts, 4), strict=True))
    )


def _checksum(key: bytes, value: bytes, parts: bytes) -> bytes:
    return hashlib.blake2b(
        key + value + parts, digest_size=8
    ).digest()  # key and value have a fixed length
