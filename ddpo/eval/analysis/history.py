"""Run histories: gains of every reward by checkpoint, against KL and reward queries."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ddpo.errors import ConfigError
from ddpo.eval.analysis.history_fit import OverOptimisationFit, fit_over_optimisation
from ddpo.eval.analysis.onset import find_onset
from ddpo.eval.analysis.tables import Pair, differences, z_unit
from ddpo.eval.inputs.models import BASE, ModelFacts
from ddpo.stats.best_of_n import BaseScores, BestOfN, against_best_of_n, best_of_n_curve
from ddpo.stats.paired import Estimate, clustered_mean

__all__ = [
    "CheckpointAssessment",
    "HistoryPoint",
    "OverOptimisationFit",
    "Peak",
    "RunHistory",
    "run_history",
]

Floats = NDArray[np.float64]
UNKNOWN = Estimate(math.nan, math.nan, math.nan, math.nan, 0, 0)


@dataclass(frozen=True, slots=True)
class HistoryPoint:
    """One checkpoint; the first of a history is the base model (iteration 0, KL 0, gains 0)."""

    model: str  # name in the report's models; "base" for the first
    iteration: int
    queries: int
    kl: Estimate  # nats per image, trajectory KL(policy || base), seen prompts; NaN if unknown
    gains: Mapping[str, Estimate]  # reward id → gain over the base on the prompts of `split`


@dataclass(frozen=True, slots=True)
class CheckpointAssessment:
    """The graded evidence about one checkpoint, on the seen prompts alone; see `hacking`."""

    model: str
    iteration: int
    grade: str
    text: str  # the strongest evidence


@dataclass(frozen=True, slots=True)
class Peak:
    """The best checkpoint by a reward, and the first later one that is significantly below it.

    Attributes:
        reward: id of the reward.
        best_iteration: iteration of the best checkpoint; 0: the base model; -1: no scores.
        onset_iteration: iteration of the first later checkpoint significantly below the best,
            allowing for the selection of the best; -1: none.
        drop: last checkpoint minus the best one, paired; negative is worse, also for a reward of
            which lower is better.
    """

    reward: str
    best_iteration: int
    onset_iteration: int
    drop: Estimate


@dataclass(frozen=True, slots=True)
class RunHistory:
    """The checkpoints of one run in the order of training, compared on their shared images.

    Attributes:
        run: name of the run.
        trained_on: id of its reward.
        split: name of the seen split whose prompts are compared.
        points: base model and checkpoints.
        peaks: one per reward, without artefact statistics, which have no better and worse.
        best_iteration: best checkpoint by the mean z-gain of the held-out rewards; -1 if unknown.
        best_of_n: best-of-n of the base model by rising n; empty if not sampled.
        best_of_verdict: sentence that compares the last checkpoint with best-of-n at equal reward
            queries; "" without best_of_n.
        beats_best_of: "yes", "no", "undecided", or "" without best_of_n.
        signs: assessment of every checkpoint.
        fits: over-optimisation curves of the trained and the held-out rewards, from 4 checkpoints
            with a known KL on.
    """

    run: str
    trained_on: str
    split: str
    points: tuple[HistoryPoint, ...]
    peaks: tuple[Peak, ...]
    best_iteration: int
    best_of_n: tuple[BestOfN, ...]
    best_of_verdict: str
    beats_best_of: str
    signs: tuple[CheckpointAssessment, ...] = ()
    fits: tuple[OverOptimisationFit, ...] = ()

    @property
    def hacking_from(self) -> int:
        """The iteration from which on every examined checkpoint has strong signs; -1: none."""
        begins = -1
        for one in reversed(self.signs):
            if one.grade != "strong signs":
                break
            begins = one.iteration
        return begins


def run_history(
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
    """The history of one run from the scores of its checkpoints' images.

    Args:
        models: checkpoints of the run, including the last one, in any order.
        pairs: pairs of all models and splits.
        split: name of the seen split.
        roles: reward id → "trained", "heldout", "artefact" or "asked", in the order of the report.
        kl: model → (prompt id, trajectory KL to the base model in nats) of each of its images;
            models may be missing.
        lower: rewards of which lower is better; the trained one is always maximised.
        base: scores of the base model's images on that split, for best-of-n; None: not sampled.
        ns: sizes of best-of-n.
        training_prompts: number of prompts that the run trains on.

    Raises:
        ConfigError: there are no models, or models of several runs.
    """
    runs = sorted({model.run for model in models})
    if len(runs) != 1:
        raise ConfigError(f"a run history needs checkpoints of one run, got {runs}")
    ordered = sorted(models, key=lambda model: model.iteration)
    last = ordered[-1]
    of_split = [pair for pair in pairs if pair.split == split]
    prompts, scores = _aligned(ordered, of_split, list(roles))
    points = _points(ordered, prompts, scores, list(roles), kl)
    better = [
        -1.0 if reward in lower and role != "trained" else 1.0 for reward, role in roles.items()
    ]
    oriented = scores * np.array(better)
    heldout = [column for column, role in enumerate(roles.values()) if role == "heldout"]
    iterations = [point.iteration for point in points]
    best = _best_point(oriented[..., heldout], prompts)
    of_last = [pair for pair in of_split if pair.model == last.name]
    curve, verdict, beats = _best_of_n(last, of_last, base or {}, list(roles), ns, training_prompts)
    return RunHistory(
        run=last.run,
        trained_on=last.trained_on,
        split=split,
        points=points,
        peaks=_peaks(oriented, prompts, roles, iterations),
        best_iteration=iterations[best] if best >= 0 else -1,
        best_of_n=curve,
        best_of_verdict=verdict,
        beats_best_of=beats,
        fits=_fits(points, roles),
    )


def _aligned(
    models: Sequence[ModelFacts], pairs: Sequence[Pair], rewards: Sequence[str]
) -> tuple[list[str], Floats]:
    """The prompts `[n]` and scores `[1 + models, n, rewards]` of the images that all models have.

    The base model comes first.
    """
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
    table = np.array(values, dtype=np.float64).reshape(len(layers), len(keys), len(rewards))
    return [prompt for prompt, _ in keys], table


def _points(
    models: Sequence[ModelFacts],
    prompts: Sequence[str],
    scores: Floats,
    rewards: Sequence[str],
    kl: Mapping[str, Sequence[tuple[str, float]]],
) -> tuple[HistoryPoint, ...]:
    """The base model, at 0 in all respects, and the checkpoints."""
    gains = [
        {
            reward: clustered_mean(table[:, column] - scores[0, :, column], prompts)
            for column, reward in enumerate(rewards)
        }
        for table in scores
    ]
    points = [HistoryPoint(BASE, 0, 0, Estimate(0.0, 0.0, 0.0, 0.0, 0, 0), gains[0])]
    for model, found in zip(models, gains[1:], strict=True):
        distance = UNKNOWN
        if known := kl.get(model.name, ()):
            distance = clustered_mean([nats for _, nats in known], [prompt for prompt, _ in known])
        points.append(HistoryPoint(model.name, model.iteration, model.queries, distance, found))
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
    """The index of the largest mean z-gain over the rewards of `[points, n, rewards]`; -1: none."""
    z_gains: list[list[float]] = []
    for column in range(oriented.shape[2]):
        scores = oriented[..., column]
        spread = z_unit(scores[0], scores - scores[0], prompts)
        if spread > 0:
            z_gains.append(
                [clustered_mean(row - scores[0], prompts).mean / spread for row in scores]
            )
    means = np.mean(z_gains, axis=0) if z_gains else np.array([math.nan])
    return -1 if np.isnan(means).all() else int(np.nanargmax(means))


def _fits(
    points: Sequence[HistoryPoint], roles: Mapping[str, str]
) -> tuple[OverOptimisationFit, ...]:
    kl = [point.kl.mean for point in points]
    fits = [
        fit_over_optimisation(reward, kl, [point.gains[reward].mean for point in points])
        for reward, role in roles.items()
        if role in ("trained", "heldout")
    ]
    return tuple(fit for fit in fits if fit is not None)


def _best_of_n(
    last: ModelFacts,
    of_last: Sequence[Pair],
    base: BaseScores,
    rewards: Sequence[str],
    ns: Sequence[int],
    training_prompts: int,
) -> tuple[tuple[BestOfN, ...], str, str]:
    """Best-of-n by the trained reward, and its comparison with the last checkpoint.

    Empty without the images of best-of-n, or without the trained reward.
    """
    if not base or last.trained_on not in rewards:
        return (), "", ""
    gains: dict[str, list[float]] = {}
    changes = differences(of_last, [last.trained_on])[:, 0]
    for pair, difference in zip(of_last, changes, strict=True):
        gains.setdefault(pair.prompt_id, []).append(float(difference))
    curve = best_of_n_curve(base, last.trained_on, rewards, ns, training_prompts)
    return curve, *against_best_of_n(gains, base, last.trained_on, last.queries, training_prompts)
