"""Best-of-n: the base model's image with the highest trained reward among n; the bar for a run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from ddpo.errors import ConfigError
from ddpo.rounding import number, rounded, rounded_range
from ddpo.stats.paired import Estimate, clustered_mean, within_prompt_sd

__all__ = [
    "BaseScores",
    "BestOfN",
    "against_best_of_n",
    "best_of_n_curve",
    "best_of_n_kl",
    "expected_best",
    "expected_best_by_prompt",
    "largest_n",
]

BaseScores = Mapping[str, Mapping[str, Sequence[float]]]
"""Prompt id → reward id → scores of the base model's images, in one order; NaN without a score."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class BestOfN:
    """The result of best-of-n of the base model by the trained reward.

    Attributes:
        n: number of images to choose from.
        kl: upper bound of the divergence in nats, log n - (n - 1) / n.
        queries: reward queries to choose for every training prompt, n × training prompts.
        gains: reward id → mean over prompts of (score of the chosen image - mean score of the base
            model).
    """

    n: int
    kl: float
    queries: int
    gains: Mapping[str, Estimate]


def best_of_n_kl(n: int) -> float:
    """KL(best-of-n || base) ≤ log n - (n - 1)/n nats; equality where no two images tie.

    Source: Beirami et al., arXiv 2401.01879: the formula in common use is an upper bound.
    """
    return math.log(n) - (n - 1) / n


def expected_best(selecting: ArrayLike, measured: ArrayLike, n: int) -> float:
    """The mean, over all subsets of n images, of the measured score of the selected image.

    The image of rank k of N (lowest first) is the best of C(k-1, n-1) of the C(N, n) subsets. Tied
    images share the weights of their ranks. The mean is unbiased for best-of-n of new images.

    Args:
        selecting: scores that select the best image, float `[N]`.
        measured: scores of the same images that are averaged, float `[N]`. An image with a NaN in
            either is left out.
        n: size of the subsets.

    Returns:
        The mean; NaN where fewer than n images are left.

    Raises:
        ConfigError: n is below 1, or the lengths differ.

    Source: the unbiased estimator of Nakano et al., arXiv 2112.09332, appendix I.
    """
    choice = np.asarray(selecting, dtype=np.float64)
    score = np.asarray(measured, dtype=np.float64)
    if choice.shape != score.shape or choice.ndim != 1:
        raise ConfigError(
            f"{choice.shape} selecting scores came with {score.shape} measured scores"
        )
    if n < 1:
        raise ConfigError(f"best-of-{n} is not defined: n must be at least 1")
    kept = ~(np.isnan(choice) | np.isnan(score))
    if kept.sum() < n:
        return math.nan
    choice = choice[kept]
    score = score[kept]
    tied = np.unique(choice, return_inverse=True)[1]
    order = np.argsort(choice, kind="stable")
    shares = np.bincount(tied[order], weights=_rank_weights(len(choice), n)) / np.bincount(tied)
    return float(shares[tied] @ score)


def expected_best_by_prompt(
    base: BaseScores, selecting: str, measured: str, n: int
) -> dict[str, float]:
    """The `expected_best` of every prompt."""
    return {
        prompt: expected_best(scores[selecting], scores[measured], n)
        for prompt, scores in base.items()
    }


def largest_n(base: BaseScores, reward: str) -> int:
    """The largest n for which nine in ten of the prompts with scores have n scored images.

    So a few images without a score cost a few prompts and not the whole comparison. 0 without
    scores.
    """
    tables = [np.asarray(scores[reward], dtype=np.float64) for scores in base.values()]
    counts = np.array([int((~np.isnan(table)).sum()) for table in tables], dtype=np.int64)
    counts = counts[counts > 0]
    return int(np.quantile(counts, 0.1, method="lower")) if len(counts) else 0


def best_of_n_curve(
    base: BaseScores,
    trained_on: str,
    rewards: Sequence[str],
    ns: Sequence[int],
    training_prompts: int,
) -> tuple[BestOfN, ...]:
    """The gain of best-of-n over a random image of the base model, by every reward and n.

    Args:
        base: scores of the base model.
        trained_on: reward that selects.
        rewards: rewards that are measured.
        ns: sizes; those above `largest_n` are left out.
        training_prompts: number of prompts that the run trains on, for the cost.

    Returns:
        One entry per n, rising. The intervals are clustered by prompt; prompts with too few scored
        images are left out and counted.
    """
    most = largest_n(base, trained_on)
    found: list[BestOfN] = []
    for n in sorted({n for n in ns if n <= most}):
        gains: dict[str, Estimate] = {}
        for reward in rewards:
            best, mean = (
                expected_best_by_prompt(base, trained_on, reward, size) for size in (n, 1)
            )
            changes = [best[prompt] - mean[prompt] for prompt in base]
            gains[reward] = clustered_mean(changes, list(base))
        found.append(BestOfN(n, best_of_n_kl(n), n * training_prompts, gains))
    return tuple(found)


def against_best_of_n(
    gains: Mapping[str, Sequence[float]],
    base: BaseScores,
    trained_on: str,
    queries: int,
    training_prompts: int,
) -> tuple[str, str]:
    """The comparison of a run with best-of-n of the base model at equal reward queries.

    It uses the trained reward, paired by prompt. Equal queries buy best-of-n with n = queries /
    training prompts. Where fewer images exist, the largest possible n is taken. That is the weaker
    opponent: a loss to it settles the question, a win does not.

    Args:
        gains: prompt id → tuned minus base of each pair of images, by the trained reward.
        base: scores of the base model's images to choose from, which may differ from the pairs.
        trained_on: reward of the run.
        queries: reward queries of the run; -1 if unknown.
        training_prompts: number of prompts that it trained on.

    Returns:
        One to three sentences with the numbers, and "yes", "no" or "undecided".
    """
    if queries < 0 or training_prompts < 1:
        text = "The run's reward queries are not known, so there is no best-of-n at equal cost."
        return text, "undecided"
    equal = max(1, queries // training_prompts)
    n = min(equal, largest_n(base, trained_on))
    if n < min(2, equal):
        text = "Too few images of the base model have scores to choose the best of several."
        return text, "undecided"
    text, verdict = _compared(gains, base, trained_on, n)
    if n == equal:
        return text, verdict
    by_chance = within_prompt_sd(*_flat(base, trained_on)) * _normal_best(equal)
    text += (
        f" Equal reward queries ({queries} for {training_prompts} prompts) would buy "
        f"best-of-{equal}, but {n} images per prompt were sampled; if scores within a prompt were "
        f"normal, best-of-{equal} would gain about {number(by_chance, signed=True)}."
    )
    return text, "undecided" if verdict == "yes" else verdict


def _compared(
    gains: Mapping[str, Sequence[float]], base: BaseScores, reward: str, n: int
) -> tuple[str, str]:
    """The run's gain beside that of best-of-n, over the prompts with both."""
    best, mean = (expected_best_by_prompt(base, reward, reward, size) for size in (n, 1))
    scored = {
        prompt: [gain for gain in found if not math.isnan(gain)] for prompt, found in gains.items()
    }
    prompts = [prompt for prompt in base if scored.get(prompt) and not math.isnan(best[prompt])]
    run = np.array([np.mean(scored[prompt]) for prompt in prompts])
    choice = np.array([best[prompt] - mean[prompt] for prompt in prompts])
    gain, chosen, over = (clustered_mean(found, prompts) for found in (run, choice, run - choice))
    text = (
        f"The last checkpoint gains {_beside(gain.mean, over)} by {reward}, best-of-{n} of the "
        f"base model {_beside(chosen.mean, over)}; the difference is {_beside(over.mean, over)} "
        f"(95 % interval {rounded_range(over.low, over.high)})."
    )
    if over.covers_zero:
        return text, "undecided"
    return text, "yes" if over.mean > 0 else "no"


def _normal_best(n: int) -> float:
    """About the expected largest of n standard normal values (Blom 1958).

    Φ⁻¹((n - 0.375) / (n + 0.25)).
    """
    return float(special.ndtri((n - 0.375) / (n + 0.25)))


def _flat(base: BaseScores, reward: str) -> tuple[list[float], list[str]]:
    """All scores of the base model by one reward, and the prompt of each."""
    values = [score for scores in base.values() for score in scores[reward]]
    prompts = [prompt for prompt, scores in base.items() for _ in scores[reward]]
    return values, prompts


def _beside(value: float, difference: Estimate) -> str:
    """A gain, rounded as the interval of the difference."""
    return rounded(value, difference.low, difference.high, signed=True)


@lru_cache(maxsize=256)
def _rank_weights(count: int, n: int) -> Floats:
    """The chance that the k-th lowest of `count` is the best of n, for k = 1 … count.

    C(k-1, n-1) / C(count, n).
    """
    weights = np.array([math.comb(k - 1, n - 1) / math.comb(count, n) for k in range(1, count + 1)])
    weights.setflags(write=False)
    return weights
