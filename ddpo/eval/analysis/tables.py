"""From scores to findings: gains per model, split and reward, how much of the seen gain carries over, several runs together."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ddpo.eval.generate.rows import Row
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
]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two pictures of one prompt from the same noise, of the base model and of a tuned one, with their scores (NaN: unscorable)."""

    model: str  # the tuned one
    split: str
    prompt_id: str
    prompt: str
    index: int
    base_image: str | None  # files, relative to the output folder
    tuned_image: str | None
    base: Mapping[str, float]  # reward id → score
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
    p: float  # that there is no gain, two-sided
    p_holm: float  # adjusted for all lines of the table


@dataclass(frozen=True, slots=True)
class Transfer:
    """How much of the gain on seen prompts shows on one held-out split."""

    model: str
    split: str
    role: Role
    reward: str
    share: TransferRatio
    gap: Gap = field(default_factory=Gap)  # seen gain - held-out gain


@dataclass(frozen=True, slots=True)
class RunsGain:
    """The gain over several runs that differ in their training seed alone: the run is the outer level."""

    models: tuple[str, ...]
    split: str
    role: Role
    reward: str
    gain: Estimate  # its clusters are the runs


def matched_pairs(rows: Sequence[Row]) -> list[Pair]:
    """Every tuned model's pictures with the base model's of the same split, prompt and index, in the order of the rows."""
    first: dict[tuple[str, str, str, int], Row] = {}
    scores: dict[tuple[str, str, str, int], dict[str, float]] = {}
    for row in rows:
        key = (row.model, row.split, row.prompt_id, row.index)
        if key not in first:
            first[key], scores[key] = row, {}
        scores[key][row.reward] = row.score
    pairs: list[Pair] = []
    for key, tuned in first.items():
        base_key = (BASE, *key[1:])
        if tuned.model == BASE or base_key not in first:
            continue
        base = first[base_key]
        pairs.append(
            Pair(
                *key[:3],
                base.prompt,
                key[3],
                base.image,
                tuned.image,
                scores[base_key],
                scores[key],
            )
        )
    return pairs


def differences(pairs: Sequence[Pair], rewards: Sequence[str]) -> Floats:
    """Tuned minus base, float `[pairs, rewards]`; NaN where either picture has no score."""
    base, tuned = _scores(pairs, rewards)
    return tuned - base


def gain_table(
    pairs: Sequence[Pair],
    models: Sequence[ModelFacts],
    splits: Sequence[Split],
    rewards: Sequence[str],
) -> tuple[Gain, ...]:
    """The gain of every model but earlier checkpoints by every reward on every split, in that order.

    `p_holm` is adjusted over the whole table.
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
    """What of the gain on all seen splits together shows on each held-out split; empty if no split is seen or none held out."""
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
    """The gains over runs that differ in their training seed alone, as far as is known; see `mean_over_runs` for what the interval covers.

    Runs belong together that were trained on the same reward, in the same way (`kind`, `recipe`) and for as many iterations and reward
    queries, each with its own seed. Two with one seed must differ in something that is not known here, so such a group is left out.
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
    shape = (len(pairs), len(rewards))
    base = np.array(
        [[pair.base.get(reward, math.nan) for reward in rewards] for pair in pairs],
        dtype=np.float64,
    )
    tuned = np.array(
        [[pair.tuned.get(reward, math.nan) for reward in rewards] for pair in pairs],
        dtype=np.float64,
    )
    return base.reshape(shape), tuned.reshape(shape)


def _gains(pairs: Sequence[Pair], rewards: Sequence[str]) -> list[tuple[PairedGain, Estimate]]:
    """Gain and z-gain per reward. The base model's spread within a prompt is taken as known: it rests on every base picture here."""
    base, tuned = _scores(pairs, rewards)
    prompts = [pair.prompt_id for pair in pairs]
    spreads = [within_prompt_sd(column, prompts) for column in base.T]
    scales = [
        spread if spread > 0 else math.nan for spread in spreads
    ]  # a reward without spread has no unit to measure gains in
    z = [
        clustered_mean((tuned - base)[:, column] / scale, prompts)
        for column, scale in enumerate(scales)
    ]
    return list(zip(paired_gains(base, tuned, prompts), z, strict=True))


def _transfers(
    seen: Sequence[Pair], heldout: Sequence[Pair], rewards: Sequence[str]
) -> list[tuple[TransferRatio, Gap]]:
    ids = [[pair.prompt_id for pair in group] for group in (seen, heldout)]
    return transfer_ratios(
        differences(seen, rewards), ids[0], differences(heldout, rewards), ids[1]
    )


def _means(table: Floats) -> list[float]:
    """The mean of each column, float `[rewards]`, without NaN; NaN where nothing is left."""
    return [
        float(column[~np.isnan(column)].mean()) if not np.isnan(column).all() else math.nan
        for column in table.T
    ]
