"""Tables of gains by model, split and reward, of their transfer, and over several runs."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from ddpo.eval.inputs.models import BASE, ModelFacts
from ddpo.eval.inputs.splits import Role, Split
from ddpo.stats.paired import (
    Estimate,
    Gap,
    PairedGain,
    TransferRatio,
    clustered_mean,
    holm,
    mean_over_runs,
    paired_gains,
    transfer_ratios,
    within_prompt_sd,
)

if TYPE_CHECKING:  # reading a report loads no torch
    from ddpo.eval.generate.samples import Row

__all__ = [
    "Gain",
    "Pair",
    "RunsGain",
    "Transfer",
    "differences",
    "gain_table",
    "matched_pairs",
    "runs_table",
    "transfer_table",
    "z_unit",
]

Floats = NDArray[np.float64]

ROUNDING: Final = 1e-9  # share of a change below which a spread is an error of rounding


@dataclass(frozen=True, slots=True)
class Pair:
    """Two images of one prompt from the same noise, one of the base model, one of a tuned model."""

    model: str  # the tuned one
    split: str
    prompt_id: str
    prompt: str
    index: int
    base_image: str | None  # files, relative to the output folder
    tuned_image: str | None
    base: Mapping[str, float]  # reward id → score; NaN where there is none
    tuned: Mapping[str, float]

    def gain(self, reward: str) -> float:
        """Tuned minus base."""
        return self.tuned[reward] - self.base[reward]


@dataclass(frozen=True, slots=True)
class Gain:
    """One line of the table of gains."""

    model: str
    split: str
    role: Role
    reward: str
    paired: PairedGain
    z: Estimate  # the same gain in standard deviations of the base model's scores within a prompt
    p: float  # two-sided p-value of no gain
    p_holm: float  # adjusted for all lines of the table


@dataclass(frozen=True, slots=True)
class Transfer:
    """The share of the gain on seen prompts that carries over to one held-out split."""

    model: str
    split: str
    role: Role
    reward: str
    share: TransferRatio
    gap: Gap = field(default_factory=Gap)  # seen gain - held-out gain


@dataclass(frozen=True, slots=True)
class RunsGain:
    """The gain over several runs that differ only in their training seed."""

    models: tuple[str, ...]
    split: str
    role: Role
    reward: str
    gain: Estimate  # its clusters are the runs


def matched_pairs(rows: Sequence[Row]) -> list[Pair]:
    """Each tuned image with the base image of the same split, prompt and index, in row order."""
    first: dict[tuple[str, str, str, int], Row] = {}
    scores: dict[tuple[str, str, str, int], dict[str, float]] = {}
    for row in rows:
        key = (row.model, row.split, row.prompt_id, row.index)
        first.setdefault(key, row)
        scores.setdefault(key, {})[row.reward] = row.score
    pairs: list[Pair] = []
    for key, tuned in first.items():
        base_key = (BASE, *key[1:])
        if tuned.model == BASE or base_key not in first:
            continue
        pair = Pair(
            model=tuned.model,
            split=tuned.split,
            prompt_id=tuned.prompt_id,
            prompt=tuned.prompt,
            index=tuned.index,
            base_image=first[base_key].image,
            tuned_image=tuned.image,
            base=scores[base_key],
            tuned=scores[key],
        )
        pairs.append(pair)
    return pairs


def differences(pairs: Sequence[Pair], rewards: Sequence[str]) -> Floats:
    """Tuned minus base, float `[pairs, rewards]`; NaN where either image has no score."""
    base, tuned = _scores(pairs, rewards)
    return tuned - base


def gain_table(
    pairs: Sequence[Pair],
    models: Sequence[ModelFacts],
    splits: Sequence[Split],
    rewards: Sequence[str],
) -> tuple[Gain, ...]:
    """The gain of every compared model by every reward on every split, in that order.

    Earlier checkpoints are left out. `p_holm` is adjusted over the whole table.
    """
    groups = _grouped(pairs)
    lines: list[tuple[str, str, Role, str, PairedGain, Estimate]] = []
    for model in (model.name for model in models if not model.history):
        by_split = {split.name: _gains(groups[model, split.name], rewards) for split in splits}
        lines += [
            (model, split.name, split.role, reward, *by_split[split.name][column])
            for column, reward in enumerate(rewards)
            for split in splits
        ]
    adjusted = holm([line[4].gain.p for line in lines])
    return tuple(
        Gain(*line, p=line[4].gain.p, p_holm=p) for line, p in zip(lines, adjusted, strict=True)
    )


def transfer_table(
    pairs: Sequence[Pair],
    models: Sequence[ModelFacts],
    splits: Sequence[Split],
    rewards: Sequence[str],
) -> tuple[Transfer, ...]:
    """The transfer of the gain on all seen splits together to each held-out split.

    Empty if no split is seen or none is held out.
    """
    groups = _grouped(pairs)
    found: list[Transfer] = []
    for model in (model.name for model in models if not model.history):
        seen = [
            pair for split in splits if split.role == "seen" for pair in groups[model, split.name]
        ]
        if not seen:
            continue
        heldout = [split for split in splits if split.role != "seen"]
        by_split = {
            split.name: _transfers(seen, groups[model, split.name], rewards) for split in heldout
        }
        found += [
            Transfer(model, split.name, split.role, reward, *by_split[split.name][column])
            for column, reward in enumerate(rewards)
            for split in heldout
        ]
    return tuple(found)


def runs_table(
    pairs: Sequence[Pair],
    models: Sequence[ModelFacts],
    splits: Sequence[Split],
    rewards: Sequence[str],
) -> tuple[RunsGain, ...]:
    """The gains over runs that differ, as far as known, only in their training seed.

    Runs belong together if they share the reward, the training (`kind`, `recipe`), and the number
    of iterations and reward queries, each with its own seed. Two runs with one seed must differ in
    something unknown here, so such a group is left out. See `mean_over_runs` for the meaning of the
    interval.
    """
    alike: dict[tuple[object, ...], list[ModelFacts]] = defaultdict(list)
    for model in models:
        if not model.history and model.trained_on and model.training_seed >= 0:
            alike[
                model.trained_on, model.kind, model.iteration, model.queries, model.recipe
            ].append(model)
    groups = _grouped(pairs)
    found: list[RunsGain] = []
    for runs in alike.values():
        if len(runs) < 2 or len({run.training_seed for run in runs}) < len(runs):
            continue
        names = tuple(run.name for run in runs)
        for split in splits:
            means = np.array(
                [_means(differences(groups[name, split.name], rewards)) for name in names]
            )
            found += [
                RunsGain(names, split.name, split.role, reward, mean_over_runs(means[:, column]))
                for column, reward in enumerate(rewards)
            ]
    return tuple(found)


def _grouped(pairs: Sequence[Pair]) -> Mapping[tuple[str, str], list[Pair]]:
    """Pairs by model and split; empty where there are none."""
    groups: dict[tuple[str, str], list[Pair]] = defaultdict(list)
    for pair in pairs:
        groups[pair.model, pair.split].append(pair)
    return groups


def _scores(pairs: Sequence[Pair], rewards: Sequence[str]) -> tuple[Floats, Floats]:
    """Scores of the base model and of the tuned one, float `[pairs, rewards]` each."""
    base = _table([pair.base for pair in pairs], rewards)
    tuned = _table([pair.tuned for pair in pairs], rewards)
    return base, tuned


def _table(scores: Sequence[Mapping[str, float]], rewards: Sequence[str]) -> Floats:
    """Scores as float `[n, rewards]`; NaN where there is none."""
    values = [[one.get(reward, math.nan) for reward in rewards] for one in scores]
    return np.array(values, dtype=np.float64).reshape(len(scores), len(rewards))


def _gains(pairs: Sequence[Pair], rewards: Sequence[str]) -> list[tuple[PairedGain, Estimate]]:
    """Gain and z-gain per reward; a reward without spread has no unit for a z-gain.

    The base model's spread within a prompt is taken as known, since every base image counts in it.
    """
    base, tuned = _scores(pairs, rewards)
    prompts = [pair.prompt_id for pair in pairs]
    changes = tuned - base
    z = [
        clustered_mean(change / z_unit(scores, change, prompts), prompts)
        for scores, change in zip(base.T, changes.T, strict=True)
    ]
    return list(zip(paired_gains(base, tuned, prompts), z, strict=True))


def z_unit(base: Floats, changes: Floats, prompts: Sequence[str]) -> float:
    """The base model's spread within a prompt, the unit of a z-gain; NaN if there is none.

    A spread that is a billionth of the changes is the rounding error of equal scores.

    Args:
        base: scores of the base model, `[n]`; NaN where there is none.
        changes: changes of these scores, `[n]` or `[models, n]`.
        prompts: prompt of each score, `[n]`.
    """
    spread = within_prompt_sd(base, prompts)
    known = np.abs(changes[np.isfinite(changes)])
    return spread if spread > ROUNDING * known.max(initial=0.0) else math.nan


def _transfers(
    seen: Sequence[Pair], heldout: Sequence[Pair], rewards: Sequence[str]
) -> list[tuple[TransferRatio, Gap]]:
    ids, other_ids = ([pair.prompt_id for pair in group] for group in (seen, heldout))
    return transfer_ratios(
        differences(seen, rewards), ids, differences(heldout, rewards), other_ids
    )


def _means(table: Floats) -> list[float]:
    """The mean of each column without NaN, float `[rewards]`; NaN where no value is left."""
    return [
        float(column[~np.isnan(column)].mean()) if not np.isnan(column).all() else math.nan
        for column in table.T
    ]
