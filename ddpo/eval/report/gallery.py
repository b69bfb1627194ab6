"""The pairs of images that a reader sees: the largest gains and losses, and a random choice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from ddpo.eval.analysis.tables import Pair

__all__ = ["Gallery", "choose_gallery", "choose_strip"]

SEED: Final = 0  # of the random choice: the same evaluation always shows the same pairs


@dataclass(frozen=True, slots=True)
class Gallery:
    """The pairs shown of one prompt list."""

    gains: tuple[Pair, ...]  # largest first
    losses: tuple[Pair, ...]  # worst first
    random: tuple[Pair, ...]


def choose_gallery(pairs: Sequence[Pair], reward: str, size: int) -> Gallery:
    """The `size` largest gains, the `size` smallest ones, and `size` pairs chosen at random.

    No pair is both among the gains and among the losses. Pairs without a score can only be chosen
    at random, where different prompts come first.
    """
    scored = sorted(
        (pair for pair in pairs if not math.isnan(pair.gain(reward))),
        key=lambda pair: pair.gain(reward),
    )
    extremes = min(size, len(scored) // 2)
    gains = tuple(reversed(scored[len(scored) - extremes :]))
    return Gallery(gains, tuple(scored[:extremes]), _choose(pairs, size))


def choose_strip(pairs: Sequence[Pair], splits: Sequence[str], size: int) -> tuple[Pair, ...]:
    """About `size` pairs chosen at random, evenly over the splits, in the order of the splits."""
    present = [name for name in splits if any(pair.split == name for pair in pairs)]
    chosen: list[Pair] = []
    for position, name in enumerate(present):
        share = (size + len(present) - 1 - position) // len(present)
        chosen += _choose([pair for pair in pairs if pair.split == name], share)
    return tuple(chosen)


def _choose(pairs: Sequence[Pair], size: int) -> tuple[Pair, ...]:
    """`size` pairs at random, from different prompts as far as there are enough prompts."""
    shuffled = [pairs[position] for position in np.random.default_rng(SEED).permutation(len(pairs))]
    seen: dict[str, int] = {}
    ranked: list[tuple[int, int]] = []
    for position, pair in enumerate(shuffled):
        seen[pair.prompt_id] = seen.get(pair.prompt_id, 0) + 1
        ranked.append((seen[pair.prompt_id], position))
    return tuple(shuffled[position] for _, position in sorted(ranked)[:size])
