"""Best-of-n: the picture that the trained reward likes best among n of the base model; what a run has to beat."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from ddpo.errors import ConfigError
from ddpo.stats.paired import Estimate, clustered_mean, within_prompt_sd

__all__ = [
    "BaseScores",
    "BestOfN",
    "against_best_of_n",
    "best_of_n_curve",
    "best_of_n_kl",
    "drawn_enough",
    "expected_best",
    "expected_best_by_prompt",
]

BaseScores = Mapping[str, Mapping[str, Sequence[float]]]
"""Prompt id → reward id → scores of the base model's pictures of that prompt, in one order for all rewards; NaN: unscorable."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class BestOfN:
    """What choosing the best of n pictures of the base model by the trained reward gives."""

    n: int
    kl: float  # nats, log n - (n - 1) / n: never less than the true divergence
    queries: int  # n × training prompts: what choosing for every training prompt costs
    gains: Mapping[
        str, Estimate
    ]  # reward id → mean over prompts of (score of the chosen picture - mean score of the base model)


def best_of_n_kl(n: int) -> float:
    """KL(best-of-n || base) ≤ log n - (n - 1)/n nats; equality where no two pictures tie.

    Source: Beirami et al., arXiv 2401.01879, who show that the formula in common use is an upper bound.
    """
    return math.log(n) - (n - 1) / n


def expected_best(selecting: ArrayLike, measured: ArrayLike, n: int) -> float:
    """Mean, over all subsets of n of the pictures, of the measured score of the one that the selecting reward likes best.

    The picture of rank k of N (lowest first) is the best of C(k-1, n-1) of the C(N, n) subsets. Pictures that tie share what their
    ranks have. Over fresh draws of pictures this is unbiased for best-of-n.

    Args:
        selecting: scores by which the best is chosen, float `[N]`.
        measured: scores of the same pictures that are averaged, float `[N]`. A picture that has a NaN in either is left out.
        n: size of the subsets.

    Returns:
        The mean; NaN where fewer than n pictures are left.

    Raises:
        ConfigError: n below 1, or the lengths differ.

    Source: the unbiased estimator of Nakano et al., arXiv 2112.09332, appendix I.
    """
    choice, score = np.asarray(selecting, dtype=np.float64), np.asarray(measured, dtype=np.float64)
    if choice.shape != score.shape or choice.ndim != 1:
        raise ConfigError(
            f"{choice.shape} selecting scores came with {score.shape} measured scores"
        )
    if n < 1:
        raise ConfigError(f"best-of-{n} is not defined: n must be at least 1")
    kept = ~(np.isnan(choice) | np.isnan(score))
    if kept.sum() < n:
        return math.nan
    choice, score = choice[kept], score[kept]
    tied = np.unique(choice, return_inverse=True)[1]
    order = np.argsort(choice, kind="stable")
    shares = np.bincount(tied[order], weights=_rank_weights(len(choice), n)) / np.bincount(tied)
    return float(shares[tied] @ score)


def expected_best_by_prompt(
    base: BaseScores, selecting: str, measured: str, n: int
) -> dict[str, float]:
    """`expected_best` of every prompt."""
    return {
        prompt: expected_best(scores[selecting], scores[measured], n)
        for prompt, scores in base.items()
    }


def drawn_enough(base: BaseScores, reward: str) -> int:
    """The largest n for which at least nine in ten of the prompts that could be scored at all have n scored pictures; 0 without any.

    A few unscorable pictures then cost a few prompts and not the whole comparison.
    """
    counts = np.array(
        [
            int((~np.isnan(np.asarray(scores[reward], dtype=np.float64))).sum())
            for scores in base.values()
        ],
        dtype=np.int64,
    )
    counts = counts[counts > 0]
    return int(np.quantile(counts, 0.1, method="lower")) if len(counts) else 0


def best_of_n_curve(
    base: BaseScores,
    trained_on: str,
    rewards: Sequence[str],
    ns: Sequence[int],
    training_prompts: int,
) -> tuple[BestOfN, ...]:
    """What best-of-n gains over a random picture of the base model, by every reward, for each n that enough pictures were drawn for.

    Args:
        base: scores of the base model.
        trained_on: the reward that chooses.
        rewards: the rewards that are measured.
        ns: sizes; sorted, those above `drawn_enough` are left out.
        training_prompts: how many prompts the run trains on, for the cost.

    Returns:
        One entry per n, rising; the intervals are clustered by prompt and leave out (and count) prompts with too few scored pictures.
    """
    most = drawn_enough(base, trained_on)
    found: list[BestOfN] = []
    for n in sorted({n for n in ns if n <= most}):
        gains: dict[str, Estimate] = {}
        for reward in rewards:
            best, mean = (
                expected_best_by_prompt(base, trained_on, reward, size) for size in (n, 1)
            )
            gains[reward] = clustered_mean(
                [best[prompt] - mean[prompt] for prompt in base], list(base)
            )
        found.append(BestOfN(n, best_of_n_kl(n), n * training_prompts, gains))
    return tuple(found)


def against_best_of_n(
    gains: Mapping[str, Sequence[float]],
    base: BaseScores,
    trained_on: str,
    queries: int,
    training_prompts: int,
) -> tuple[str, str]:
    """Does a run beat choosing among pictures of the base model at equal reward queries? By the trained reward, paired by prompt.

    Equal queries buy best-of-n with n = queries / training prompts. Where fewer pictures were drawn, the largest n that was drawn
    stands in. It is the weaker opponent: losing to it settles the matter, beating it does not.

    Args:
        gains: prompt id → tuned minus base of each pair of pictures, by the trained reward.
        base: scores of the base model's pictures to choose from, which need not be those of the pairs.
        trained_on: the run's reward.
        queries: the run's reward queries; -1 if unknown.
        training_prompts: how many prompts it trained on.

    Returns:
        A sentence or three with the numbers, and "yes", "no" or "undecided".
    """
    if queries < 0 or training_prompts < 1:
        return (
            "How many reward queries the run made is not known, so there is no best-of-n at equal cost.",
            "undecided",
        )
    equal, most = max(1, queries // training_prompts), drawn_enough(base, trained_on)
    n = min(equal, most)
    if n < min(2, equal):
        return (
            "Too few pictures of the base model could be scored to choose the best of several.",
            "undecided",
        )
    text, verdict = _compared(gains, base, trained_on, n)
    if n == equal:
        return text, verdict
    by_chance = within_prompt_sd(*_flat(base, trained_on)) * _normal_best(equal)
    text += (
        f" Equal reward queries ({queries} for {training_prompts} prompts) would buy best-of-{equal}, but {n} pictures a prompt were drawn;"
        f" if scores within a prompt were normal, best-of-{equal} would gain about {_signed(by_chance)}."
    )
    return text, "undecided" if verdict == "yes" else verdict


def _compared(
    gains: Mapping[str, Sequence[float]], base: BaseScores, reward: str, n: int
) -> tuple[str, str]:
    """The run's gain against that of best-of-n, over the prompts for which both are known."""
    best, mean = (expected_best_by_prompt(base, reward, reward, size) for size in (n, 1))
    scored = {
        prompt: [gain for gain in found if not math.isnan(gain)] for prompt, found in gains.items()
    }
    prompts = [prompt for prompt in base if scored.get(prompt) and not math.isnan(best[prompt])]
    run = np.array([np.mean(scored[prompt]) for prompt in prompts])
    choice = np.array([best[prompt] - mean[prompt] for prompt in prompts])
    gain, chosen, over = (clustered_mean(found, prompts) for found in (run, choice, run - choice))
    text = (
        f"The last checkpoint gains {_signed(gain.mean)} by {reward}, best-of-{n} of the base model {_signed(chosen.mean)}; "
        f"the difference is {_signed(over.mean)} (95 % interval {_signed(over.low)} to {_signed(over.high)})."
    )
    return text, "undecided" if over.covers_zero else "yes" if over.mean > 0 else "no"


def _normal_best(n: int) -> float:
    """About the expected largest of n standard normal draws, Φ⁻¹((n - 0.375) / (n + 0.25)) (Blom 1958)."""
    return float(special.ndtri((n - 0.375) / (n + 0.25)))


def _flat(base: BaseScores, reward: str) -> tuple[list[float], list[str]]:
    """All scores of the base model by one reward, and the prompt of each."""
    return [score for scores in base.values() for score in scores[reward]], [
        p for p, scores in base.items() for _ in scores[reward]
    ]


def _signed(value: float) -> str:
    return f"{value:+.3g}".replace("-", "−")


@lru_cache(maxsize=256)
def _rank_weights(count: int, n: int) -> Floats:
    """C(k-1, n-1) / C(count, n) for k = 1 … count: the chance that the k-th lowest is the best of n."""
    weights = np.array([math.comb(k - 1, n - 1) / math.comb(count, n) for k in range(1, count + 1)])
    weights.setflags(write=False)
    return weights
