"""What became of the pictures of a batch, in pieces: computed, looked up, repeated, failed; and all of them together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from ddpo.errors import ContractBroken
from ddpo.rewards.cache import CachedScore
from ddpo.types import RewardOutput

__all__ = ["ChunkResult", "ScoringResult", "cached_results", "concatenate", "repeated_results"]


@dataclass(frozen=True, slots=True)
class ScoringResult:
    """What became of each picture: a score, unscorable (NaN, a reason), or failed (NaN, a reason, and its place in `failed`)."""

    output: RewardOutput
    failed: frozenset[
        int
    ]  # places where the reward broke, rather than found that the picture has no score
    unavailable: frozenset[int] = frozenset()  # those of `failed` where its back end did not answer


@dataclass(frozen=True, slots=True)
class ChunkResult:
    """The outcome of some places of a batch."""

    places: Sequence[int]
    output: RewardOutput
    failed: bool = False
    unavailable: bool = False

    def to_cache(self, keys: Sequence[bytes | None]) -> list[tuple[bytes, CachedScore]]:
        """The scores with their keys; what could not be scored is not kept."""
        values, errors = self.output.values.tolist(), self.output.errors
        parts = {name: part.tolist() for name, part in self.output.parts.items()}
        return [
            (key, CachedScore(values[i], {name: part[i] for name, part in parts.items()}))
            for i, place in enumerate(self.places)
            if (key := keys[place]) is not None and errors[i] is None
        ]


def cached_results(
    known: Mapping[bytes, CachedScore], keys: Sequence[bytes | None]
) -> list[ChunkResult]:
    hits = [
        (place, known[key]) for place, key in enumerate(keys) if key is not None and key in known
    ]
    if not hits:
        return []
    places, found = [place for place, _ in hits], [score for _, score in hits]
    if any(score.parts.keys() != found[0].parts.keys() for score in found):
        raise ContractBroken("a reward gave other parts for some pictures than for others")
    parts = {name: torch.tensor([score.parts[name] for score in found]) for name in found[0].parts}
    return [
        ChunkResult(
            places,
            RewardOutput(
                torch.tensor([score.value for score in found], dtype=torch.float32), parts
            ),
        )
    ]


def repeated_results(
    pieces: Sequence[ChunkResult], keys: Sequence[bytes | None], first: Mapping[bytes, int]
) -> list[ChunkResult]:
    """The pictures that came before in the same batch, with the outcome that they had there."""
    where = {place: (piece, i) for piece in pieces for i, place in enumerate(piece.places)}
    repeats = [
        (place, *where[first[key]])
        for place, key in enumerate(keys)
        if key is not None and first.get(key, place) != place
    ]
    return [
        ChunkResult(
            [place],
            RewardOutput(
                piece.output.values[i : i + 1],
                {name: part[i : i + 1] for name, part in piece.output.parts.items()},
                piece.output.errors[i : i + 1],
            ),
            piece.failed,
            piece.unavailable,
        )
        for place, piece, i in repeats
    ]


def concatenate(pieces: Sequence[ChunkResult], count: int, name: str) -> ScoringResult:
    """The pieces at their places. Parts of a piece whose every picture failed are NaN."""
    whole = [piece for piece in pieces if not piece.failed]
    names = list(whole[0].output.parts) if whole else []
    if any(set(piece.output.parts) != set(names) for piece in whole):
        raise ContractBroken(f"reward {name!r} gave other parts for some batches than for others")
    values = torch.full((count,), torch.nan)
    parts = {part: torch.full((count,), torch.nan) for part in names}
    errors: list[str | None] = [None] * count
    for piece in pieces:
        index = torch.tensor(list(piece.places))
        values[index] = piece.output.values
        for part, value in ({} if piece.failed else piece.output.parts).items():
            parts[part][index] = value
        for place, error in zip(piece.places, piece.output.errors, strict=True):
            errors[place] = error
    failed = frozenset(place for piece in pieces if piece.failed for place in piece.places)
    unavailable = frozenset(
        place for piece in pieces if piece.unavailable for place in piece.places
    )
    return ScoringResult(RewardOutput(values, parts, tuple(errors)), failed, unavailable)
