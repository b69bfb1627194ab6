"""From scores to findings: gains per split and reward, and how much of the seen gain carries over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ddpo.eval.protocol import Evaluation, PolicyName, Role, Row
from ddpo.eval.stats import PairedGain, TransferRatio, holm, paired_gain, transfer_ratio

__all__ = ["Gain", "Pair", "Transfer", "gain_table", "matched_pairs", "transfer_table"]

PairKey = tuple[str, str, int]  # split, prompt id, index


@dataclass(frozen=True, slots=True)
class Pair:
    """Two pictures of one prompt from the same noise, before and after training, with their scores (NaN: unscorable)."""

    split: str
    prompt_id: str
    prompt: str
    index: int
    base_image: str | None
    tuned_image: str | None
    base: Mapping[str, float]  # reward id → score
    tuned: Mapping[str, float]

    def gain(self, reward: str) -> float:
        """Tuned minus base."""
        return self.tuned[reward] - self.base[reward]


@dataclass(frozen=True, slots=True)
class Gain:
    """One line of the table of gains."""

    split: str
    role: Role
    reward: str
    paired: PairedGain
    p: float  # that there is no gain, two-sided
    p_holm: float  # adjusted for all lines of the table


@dataclass(frozen=True, slots=True)
class Transfer:
    """How much of the gain on seen prompts shows on one held-out split."""

    split: str
    role: Role
    reward: str
    share: TransferRatio


def matched_pairs(rows: Sequence[Row]) -> list[Pair]:
    """The pairs, in the order of the rows."""
    scores: dict[PairKey, dict[PolicyName, dict[str, float]]] = {}
    first: dict[tuple[PairKey, PolicyName], Row] = {}
    for row in rows:
        key = (row.split, row.prompt_id, row.index)
        scores.setdefault(key, {}).setdefault(row.policy, {})[row.reward] = row.score
        first.setdefault((key, row.policy), row)
    pairs: list[Pair] = []
    for key, found in scores.items():
        if "base" not in found or "tuned" not in found:
            continue
        base, tuned = first[key, "base"], first[key, "tuned"]
        pairs.append(Pair(key[0], key[1], base.prompt, key[2], base.image, tuned.image, found["base"], found["tuned"]))
    return pairs


def gain_table(evaluation: Evaluation, pairs: Sequence[Pair]) -> tuple[Gain, ...]:
    """The gain of every split by every reward, in that order, with p-values adjusted over the whole table (Holm)."""
    lines: list[tuple[str, Role, str, PairedGain]] = []
    for reward in evaluation.cards:
        for split in evaluation.splits:
            mine = [pair for pair in pairs if pair.split == split.name]
            base, tuned = [pair.base[reward] for pair in mine], [pair.tuned[reward] for pair in mine]
            lines.append((split.name, split.role, reward, paired_gain(base, tuned, [pair.prompt_id for pair in mine])))
    adjusted = holm([paired.gain.p for *_, paired in lines])
    return tuple(Gain(*line, p=line[3].gain.p, p_holm=p) for line, p in zip(lines, adjusted, strict=True))


def transfer_table(evaluation: Evaluation, pairs: Sequence[Pair]) -> tuple[Transfer, ...]:
    """The transfer ratio of every held-out split against all seen splits together; empty if no split is seen or none held out."""
    seen_names = {split.name for split in evaluation.splits if split.role == "seen"}
    seen = [pair for pair in pairs if pair.split in seen_names]
    found: list[Transfer] = []
    for reward in evaluation.cards:
        for split in evaluation.splits:
            if split.role == "seen" or not seen:
                continue
            heldout = [pair for pair in pairs if pair.split == split.name]
            gains = [np.array([pair.gain(reward) for pair in group]) for group in (seen, heldout)]
            ids = [[pair.prompt_id for pair in group] for group in (seen, heldout)]
            found.append(Transfer(split.name, split.role, reward, transfer_ratio(gains[0], ids[0], gains[1], ids[1])))
    return tuple(found)
