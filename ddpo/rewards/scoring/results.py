"""Scores of parts of a batch, and how they merge into the scores of the whole batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from ddpo.errors import ContractBroken, RewardFailure, RewardUnavailable
from ddpo.rewards.cache import CachedScore
from ddpo.types import ImageBatch, RewardOutput

__all__ = [
    "Chunk",
    "cached_chunks",
    "concatenate",
    "failed_output",
    "first_places",
    "raise_with_place",
    "repeated_chunks",
    "scores_to_cache",
    "select",
]

Chunk = tuple[Sequence[int], RewardOutput]
"""Places of some images in a batch, and their scores."""


def failed_output(count: int, error: RewardFailure) -> RewardOutput:
    """The scores of `count` images on which the reward failed: NaN, with the error as reason."""
    places = frozenset(range(count))
    return RewardOutput(
        torch.full((count,), torch.nan),
        errors=(str(error),) * count,
        failed=places,
        unavailable=places if isinstance(error, RewardUnavailable) else frozenset(),
    )


def select(output: RewardOutput, places: Sequence[int]) -> RewardOutput:
    """The scores at `places`, in that order."""
    index = list(places)
    return RewardOutput(
        output.values[index],
        {name: part[index] for name, part in output.parts.items()},
        tuple(output.errors[place] for place in index),
        frozenset(i for i, place in enumerate(index) if place in output.failed),
        frozenset(i for i, place in enumerate(index) if place in output.unavailable),
    )


def scores_to_cache(chunk: Chunk, keys: Sequence[bytes | None]) -> list[tuple[bytes, CachedScore]]:
    """The scores of a chunk with their keys, without the images that have no score.

    Args:
        chunk: Places and scores.
        keys: Cache key of each image of the whole batch; None for one that must not be cached.
    """
    places, output = chunk
    values = output.values.tolist()
    parts = {name: part.tolist() for name, part in output.parts.items()}
    return [
        (key, CachedScore(values[i], {name: part[i] for name, part in parts.items()}))
        for i, place in enumerate(places)
        if (key := keys[place]) is not None and output.errors[i] is None
    ]


def cached_chunks(known: Mapping[bytes, CachedScore], keys: Sequence[bytes | None]) -> list[Chunk]:
    """The scores that were found in the cache, as one chunk; no chunk if there are none.

    Raises:
        ContractBroken: The cached scores have different parts.
    """
    places = [place for place, key in enumerate(keys) if key is not None and key in known]
    if not places:
        return []
    scores = [known[key] for key in keys if key is not None and key in known]
    names = scores[0].parts.keys()
    if any(score.parts.keys() != names for score in scores):
        raise ContractBroken("a reward gave other parts for some images than for others")
    parts = {name: torch.tensor([score.parts[name] for score in scores]) for name in names}
    values = torch.tensor([score.value for score in scores], dtype=torch.float32)
    return [(places, RewardOutput(values, parts))]


def first_places(
    keys: Sequence[bytes | None], known: Mapping[bytes, CachedScore]
) -> dict[bytes, int]:
    """Cache key → place of its first image, for keys whose score is not known."""
    first: dict[bytes, int] = {}
    for place, key in enumerate(keys):
        if key is not None and key not in known:
            first.setdefault(key, place)
    return first


def repeated_chunks(
    chunks: Sequence[Chunk], keys: Sequence[bytes | None], first: Mapping[bytes, int]
) -> list[Chunk]:
    """The scores of images that are repeated in a batch, copied from their first occurrence.

    Args:
        chunks: Scores of the images that were scored.
        keys: Cache key of each image of the batch.
        first: Cache key → place of the first occurrence.
    """
    where = {place: (output, i) for places, output in chunks for i, place in enumerate(places)}
    repeats = [
        (place, *where[first[key]])
        for place, key in enumerate(keys)
        if key is not None and first.get(key, place) != place
    ]
    return [([place], select(output, [i])) for place, output, i in repeats]


def concatenate(chunks: Sequence[Chunk], count: int, name: str) -> RewardOutput:
    """The scores of a whole batch; the parts of a chunk without any score are NaN.

    Args:
        chunks: Places and scores that together cover the batch.
        count: Number of images in the batch.
        name: Id of the reward, for the error message.

    Raises:
        ContractBroken: Chunks have different parts.
    """
    scored = [output for _, output in chunks if len(output.failed) < len(output)]
    names = list(scored[0].parts) if scored else []
    if any(set(output.parts) != set(names) for output in scored):
        raise ContractBroken(f"reward {name!r} gave other parts for some batches than for others")
    values = torch.full((count,), torch.nan)
    parts = {part: torch.full((count,), torch.nan) for part in names}
    errors: list[str | None] = [None] * count
    failed: set[int] = set()
    unavailable: set[int] = set()
    for places, output in chunks:
        index = torch.tensor(list(places))
        values[index] = output.values
        if len(output.failed) < len(output):
            for part, value in output.parts.items():
                parts[part][index] = value
        for place, error in zip(places, output.errors, strict=True):
            errors[place] = error
        failed |= {places[i] for i in output.failed}
        unavailable |= {places[i] for i in output.unavailable}
    return RewardOutput(values, parts, tuple(errors), frozenset(failed), frozenset(unavailable))


def raise_with_place(
    places: Sequence[int], batch: ImageBatch, error: RewardFailure
) -> RewardOutput:
    """Raises a failure with the place and the prompt of the first image at fault."""
    several = len(places) > 1
    where = f"images {places[0]} to {places[-1]}" if several else f"image {places[0]}"
    text = f"{error} ({where}, prompt {batch.prompts[0].text!r})"
    raise type(error)(text) from error.__cause__
