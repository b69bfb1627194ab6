"""The onset of a decline during training, allowing for chance and for the selection of the best."""

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
    """Indices into the points of a run history; -1: none."""

    best: int
    onset: int
    drop: Estimate  # last minus best


def find_onset(scores: Floats, prompt_ids: Sequence[str]) -> Onset:
    """The best point of a run history and the first later one that is significantly below it.

    Points are compared in pairs of images and clustered by prompt. The best of K points was chosen
    by the same noisy scores, which makes later ones look worse than they are. So the one-sided
    p-value of each later point is multiplied by K (K - 1) / 2, the number of pairs of an earlier
    and a later point. By Bonferroni's inequality, a history without change has an onset in at most
    5 % of cases. (A correction for the later points alone lets 10 % through with 7 points, by
    simulation.)

    Args:
        scores: scores of which higher is better, float `[points, n]`; a column is one prompt and
            noise; NaN where there is no score.
        prompt_ids: prompt of each column, `[n]`.
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
    last = drops[-1] if drops else clustered_mean(scores[-1] - scores[best], prompt_ids)
    return Onset(best, worse[0] if worse else -1, last)
