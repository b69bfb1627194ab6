"""The course of a run: what the trained reward and the held-out rewards did, checkpoint by checkpoint, against KL and reward queries."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ddpo.errors import ConfigError
from ddpo.eval.analysis.history_fit import OverOptimisationFit, fit_over_optimisation
from ddpo.eval.analysis.onset import find_onset
from ddpo.eval.analysis.tables import Pair, differences
from ddpo.eval.inputs.models import BASE, ModelFacts
from ddpo.stats.best_of_n import BaseScores, BestOfN, against_best_of_n, best_of_n_curve
from ddpo.stats.paired import Estimate, clustered_mean, within_prompt_sd

__all__ = [
    "CheckpointAssessment",
    "CoursePoint",
    "OverOptimisationFit",
    "Peak",
    "RunHistory",
    "course",
]

Floats = NDArray[np.float64]
UNKNOWN = Estimate(math.nan, math.nan, math.nan, math.nan, 0, 0)


@dataclass(frozen=True, slots=True)
class CoursePoint:
    """One checkpoint; the first one of a course is the base model (iteration 0, KL 0, gains 0)."""

    model: str  # name in the report's models; "base" for the first
    iteration: int
    queries: int
    kl: Estimate  # nats per picture, trajectory KL(policy || base) on training prompts; NaN if unknown
    gains: Mapping[str, Estimate]  # reward id → gain over the base on the prompts of `split`


@dataclass(frozen=True, slots=True)
class CheckpointAssessment:
    """The graded evidence about one checkpoint of a course, on the seen prompts alone; see `reading`."""

    model: str
    iteration: int
    grade: str
    text: str  # the strongest evidence


@dataclass(frozen=True, slots=True)
class Peak:
    """Where a reward was best, and from where on it was significantly below that."""

    reward: str
    best_iteration: int  # 0: the base model; -1: no picture could be scored
    onset_iteration: int  # first later checkpoint significantly below the best, allowing for the choice of the best; -1: none
    drop: Estimate  # last checkpoint minus the best one, paired; negative is worse, for a reward that is better when lower too


@dataclass(frozen=True, slots=True)
class RunHistory:
    """The checkpoints of one run in the order of training, compared on the pictures (prompt and noise) that all of them have."""

    run: str
    trained_on: str
    split: str  # whose prompts: the seen ones
    points: tuple[CoursePoint, ...]
    peaks: tuple[
        Peak, ...
    ]  # one per reward but artefact statistics, which have no better and worse
    best_iteration: int  # by the mean z-gain of the held-out rewards; -1 if there is none
    best_of_n: tuple[BestOfN, ...]  # from the base model, rising n; empty if not drawn
    best_of_verdict: str  # a sentence: does the last checkpoint beat best-of-n at equal reward queries; "" without best_of_n
    beats_best_of: str  # "yes", "no", "undecided", or "" without best_of_n
    signs: tuple[
        CheckpointAssessment, ...
    ] = ()  # of every checkpoint but the base model; where they begin is where the run went wrong
    fits: tuple[
        OverOptimisationFit, ...
    ] = ()  # of the trained and the held-out rewards, where 4 checkpoints have a known KL


def course(
    models: Sequence[ModelFacts],
    pairs: Sequence[Pair],
    *,
    split: str,
    roles: Mapping[str, str],
    kl: Mapping[str, Sequence[tuple[str, float]]],
    lower: Collection[str] = (),
    base: BaseScores | None = None,
    ns: Sequence[int] = (),
    training_prompts: int = 0,
) -> RunHistory:
    """The course of one run from its checkpoints' pictures.

    Args:
        models: the checkpoints of the run, in any order, the last one with them.
        pairs: of all models and splits.
        split: the seen split whose prompts the course is about.
        roles: reward id → "trained", "heldout", "artefact" or "asked", in the order of the report.
        kl: model → (prompt id, trajectory KL to the base model in nats) of each of its pictures; models may be missing.
        lower: rewards that are better when lower; the trained one is maximised whatever it says.
        base: scores of the base model's pictures on that split, for best-of-n; None: not drawn.
        ns: sizes for best-of-n.
        training_prompts: how many prompts the run trains on.

    Raises:
        ConfigError: no models, or models of several runs.
    """
    if not models or len({model.run for model in models}) > 1:
        raise ConfigError(
            f"a course is made of the checkpoints of one run, not of {sorted({model.run for model in models})}"
        )
    ordered = sorted(models, key=lambda model: model.iteration)
    last = ordered[-1]
    prompts, scores = _aligned(
        ordered, [pair for pair in pairs if pair.split == split], list(roles)
    )
    points = _points(ordered, prompts, scores, list(roles), kl)
    better = np.array(
        [-1.0 if reward in lower and role != "trained" else 1.0 for reward, role in roles.items()]
    )
    oriented = scores * better
    of_last = [pair for pair in pairs if pair.split == split and pair.model == last.name]
    choosing = _choosing(last, of_last, base or {}, list(roles), ns, training_prompts)
    heldout = [column for column, role in enumerate(roles.values()) if role == "heldout"]
    best = _best_point(oriented[..., heldout], prompts)
    iterations = [point.iteration for point in points]
    peaks = _peaks(oriented, prompts, roles, iterations)
    best_iteration = iterations[best] if best >= 0 else -1
    return RunHistory(
        last.run,
        last.trained_on,
        split,
        points,
        peaks,
        best_iteration,
        *choosing,
        (),
        _fits(points, roles),
    )


def _aligned(
    models: Sequence[ModelFacts], pairs: Sequence[Pair], rewards: Sequence[str]
) -> tuple[list[str], Floats]:
    """Prompts `[n]` and scores `[1 + models, n, rewards]`, the base model first, of the pictures that all models have."""
    found: dict[str, dict[tuple[str, int], Pair]] = {model.name: {} for model in models}
    for pair in pairs:
        if pair.model in found:
            found[pair.model][pair.prompt_id, pair.index] = pair
    keys = [key for key in found[models[-1].name] if all(key in one for one in found.values())]
    of_base = [found[models[-1].name][key].base for key in keys]
    layers = [of_base, *([found[model.name][key].tuned for key in keys] for model in models)]
    values = [
        [[scores.get(reward, math.nan) for reward in rewards] for scores in layer]
        for layer in layers
    ]
    return [prompt for prompt, _ in keys], np.array(values, dtype=np.float64).reshape(
        len(layers), len(keys), len(rewards)
    )


def _points(
    models: Sequence[ModelFacts],
    prompts: Sequence[str],
    scores: Floats,
    rewards: Sequence[str],
    kl: Mapping[str, Sequence[tuple[str, float]]],
) -> tuple[CoursePoint, ...]:
    """The base model, which is 0 in all respects, and the checkpoints."""
    gains = [
        {
            reward: clustered_mean(table[:, column] - scores[0, :, column], prompts)
            for column, reward in enumerate(rewards)
        }
        for table in scores
    ]
    points = [CoursePoint(BASE, 0, 0, Estimate(0.0, 0.0, 0.0, 0.0, 0, 0), gains[0])]
    for model, found in zip(models, gains[1:], strict=True):
        known = kl.get(model.name, ())
        distance = (
            clustered_mean([nats for _, nats in known], [prompt for prompt, _ in known])
            if known
            else UNKNOWN
        )
        points.append(CoursePoint(model.name, model.iteration, model.queries, distance, found))
    return tuple(points)


def _peaks(
    oriented: Floats, prompts: Sequence[str], roles: Mapping[str, str], iterations: Sequence[int]
) -> tuple[Peak, ...]:
    peaks: list[Peak] = []
    for column, (reward, role) in enumerate(roles.items()):
        if role != "artefact":
            found = find_onset(oriented[..., column], prompts)
            best, onset = (iterations[at] if at >= 0 else -1 for at in (found.best, found.onset))
            peaks.append(Peak(reward, best, onset, found.drop))
    return tuple(peaks)


def _best_point(oriented: Floats, prompts: Sequence[str]) -> int:
    """The point of the largest mean z-gain over the rewards of `[points, n, rewards]`; -1 if there is none."""
    z_gains: list[list[float]] = []
    for column in range(oriented.shape[2]):
        scores = oriented[..., column]
        spread = within_prompt_sd(scores[0], prompts)
        if spread > 0:
            z_gains.append(
                [clustered_mean(row - scores[0], prompts).mean / spread for row in scores]
            )
    means = np.mean(z_gains, axis=0) if z_gains else np.array([math.nan])
    return -1 if np.isnan(means).all() else int(np.nanargmax(means))


def _fits(
    points: Sequence[CoursePoint], roles: Mapping[str, str]
) -> tuple[OverOptimisationFit, ...]:
    kl = [point.kl.mean for point in points]
    wanted = [reward for reward, role in roles.items() if role in ("trained", "heldout")]
    fits = [
        fit_over_optimisation(reward, kl, [point.gains[reward].mean for point in points])
        for reward in wanted
    ]
    return tuple(fit for fit in fits if fit is not None)


def _choosing(
    last: ModelFacts,
    of_last: Sequence[Pair],
    base: BaseScores,
    rewards: Sequence[str],
    ns: Sequence[int],
    training_prompts: int,
) -> tuple[tuple[BestOfN, ...], str, str]:
    """Best-of-n by the trained reward and how the last checkpoint compares; nothing where the pictures or the reward are not here."""
    if not base or last.trained_on not in rewards:
        return (), "", ""
    gains: dict[str, list[float]] = {}
    for pair, difference in zip(
        of_last, differences(of_last, [last.trained_on])[:, 0], strict=True
    ):
        gains.setdefault(pair.prompt_id, []).append(float(difference))
    curve = best_of_n_curve(base, last.trained_on, rewards, ns, training_prompts)
    return curve, *against_best_of_n(gains, base, last.trained_on, last.queries, training_prompts)
