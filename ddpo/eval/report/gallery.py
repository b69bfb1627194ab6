"""Which pairs of pictures a reader is shown: not the prettiest, but the extremes and a random draw."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ddpo.eval.analysis.tables import Pair

__all__ = ["Gallery", "choose_gallery", "choose_strip"]

SEED = 0  # of the random draw: the same evaluation always shows the same pairs


@dataclass(frozen=True, slots=True)
class Gallery:
    """The pairs shown of one split."""

    gains: tuple[Pair, ...]  # largest first
    losses: tuple[Pair, ...]  # worst first
    random: tuple[Pair, ...]


def choose_gallery(pairs: Sequence[Pair], reward: str, size: int) -> Gallery:
    """The `size` largest gains, the `size` smallest or most negative, and `size` drawn at random (from different prompts first).

    No pair is both among the gains and among the losses; pairs that could not be scored can only be drawn at random.
    """
    scored = sorted(
        (pair for pair in pairs if not math.isnan(pair.gain(reward))),
        key=lambda pair: pair.gain(reward),
    )
    size_each = min(size, len(scored) // 2)
    return Gallery(
        tuple(reversed(scored[len(scored) - size_each :])),
        tuple(scored[:size_each]),
        _draw(pairs, size),
    )


def choose_strip(pairs: Sequence[Pair], splits: Sequence[str], size: int) -> tuple[Pair, ...]:
    """About `size` pairs drawn at random, evenly over the splits, in the order of the splits."""
    present = [name for name in splits if any(pair.split == name for pair in pairs)]
    chosen: list[Pair] = []
    for position, name in enumerate(present):
        share = (size + len(present) - 1 - position) // len(present)
        chosen += _draw([pair for pair in pairs if pair.split == name], share)
    return tuple(chosen)


def _draw(pairs: Sequence[Pair], size: int) -> tuple[Pair, ...]:
    """`size` pairs at random, from different prompts as far as there are enough prompts."""
    shuffled = [pairs[position] for position in np.random.default_rng(SEED).permutation(len(pairs))]
    seen: dict[str, int] = {}
    ranked: list[tuple[int, int]] = []
    for position, pair in enumerate(shuffled):
        seen[pair.prompt_id] = seen.get(pair.prompt_id, 0) + 1
        ranked.append((seen[pair.prompt_id], position))
    return tuple(shuffled[position] for _, position in sorted(ranked)[:size])
