"""Exact packing of a score into a row of the database, with a checksum."""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

from ddpo.io.fields import ListOf
from ddpo.io.json_files import JsonError, check_fields, parse_json

__all__ = ["CachedScore", "pack", "unpack"]


class CachedScore(NamedTuple):
    """A score and its named parts, as float32 values."""

    value: float
    parts: Mapping[str, float]


def pack(key: bytes, score: CachedScore) -> tuple[bytes, bytes, bytes] | None:
    """Value, parts and checksum of a score as bytes; None unless all are finite float32 values."""
    numbers = [score.value, *score.parts.values()]
    if not all(math.isfinite(number) for number in numbers):
        return None
    try:
        packed = struct.pack(f"<{len(numbers)}f", *numbers)
    except OverflowError:
        return None
    parts = b""
    if score.parts:
        names = json.dumps(list(score.parts)).encode()
        parts = struct.pack("<I", len(score.parts)) + packed[4:] + names
    return packed[:4], parts, _checksum(key, packed[:4], parts)


def unpack(key: bytes, value: Any, parts: Any, checksum: Any) -> CachedScore | None:
    """The score in a row; None if the row differs from what `pack` makes for that key."""
    if not (isinstance(value, bytes) and isinstance(parts, bytes) and len(value) == 4):
        return None
    if _checksum(key, value, parts) != checksum:
        return None
    score: float = struct.unpack("<f", value)[0]
    if not parts and math.isfinite(score):
        return CachedScore(score, {})
    if not math.isfinite(score):
        return None
    try:
        count: int = struct.unpack_from("<I", parts)[0]
        numbers = struct.unpack_from(f"<{count}f", parts, 4)
        names = parse_json(parts[4 + 4 * count :])
        check_fields({"names": names}, {"names": ListOf(str, count, count)})
    except (struct.error, JsonError):
        return None
    return CachedScore(score, dict(zip(names, numbers, strict=True)))


def _checksum(key: bytes, value: bytes, parts: bytes) -> bytes:
    # key and value have a fixed length
    return hashlib.blake2b(key + value + parts, digest_size=8).digest()
