"""Where a score was best in the course of training, and from where on it was worse, beyond what chance and the choosing explain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ddpo.stats.bootstrap import CONFIDENCE
from ddpo.stats.paired import Estimate, clustered_mean

__all__ = ["Onset", "find_onset"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Onset:
    """Positions in the course; -1: none."""

    best: int
    onset: int
    drop: Estimate  # last minus best


def find_onset(scores: Floats, prompt_ids: Sequence[str]) -> Onset:
    """The best point of a course and the first later one that is significantly below it, paired by picture and clustered by prompt.

    The best of K points was chosen by the same noisy scores, which makes later ones look worse than they are. So the one-sided p-value
    of each later point is multiplied by K (K - 1) / 2, the number of pairs of an earlier and a later point that could have been found:
    by Bonferroni's inequality a course without any change has an onset in at most 5 % of cases, whichever point comes out best.
    (Correcting for the later points alone lets 10 % through with 7 points, by simulation.)

    Args:
        scores: higher is better, float `[points, n]`; a column is one prompt and noise; NaN: unscorable.
        prompt_ids: the prompt of each column, `[n]`.
    """
    gains = [clustered_mean(row - scores[0], prompt_ids) for row in scores]
    means = np.array([gain.mean for gain in gains])
    if np.isnan(means).all():
        return Onset(-1, -1, gains[-1])
    best = int(np.nanargmax(means))
    drops = [clustered_mean(row - scores[best], prompt_ids) for row in scores[best + 1 :]]
    family = len(scores) * (len(scores) - 1) / 2
    worse = [
        best + 1 + i
        for i, drop in enumerate(drops)
        if drop.mean < 0 and drop.p / 2 * family < 1 - CONFIDENCE
    ]
    return Onset(
        best,
        worse[0] if worse else -1,
        drops[-1] if drops else clustered_mean(scores[-1] - scores[best], prompt_ids),
    )
