"""Views of the cross-reward matrix: the gain by each reward of models trained on each reward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ddpo.eval.analysis.tables import Gain
from ddpo.eval.inputs.models import ModelFacts
from ddpo.eval.report.data import Report, RewardFacts, SplitFacts
from ddpo.eval.report.selection import gains_of, model_class, rewards_of
from ddpo.eval.report.wording import mean_text, range_text, reward_title, role_text, split_title

__all__ = ["MatrixCell", "MatrixRow", "MatrixView", "matrix_views"]


@dataclass(frozen=True, slots=True)
class MatrixCell:
    """The gain of one model by one reward."""

    css: str  # "rise", "fall", "moved" or "same", and "own" for the reward it was trained on
    size: str  # with its sign
    interval: str
    has_shared_lineage: bool  # with the reward that the model was trained on


@dataclass(frozen=True, slots=True)
class MatrixRow:
    """The gains of one model; None where one was not measured."""

    model: str
    trained_on: str
    css: str
    cells: Sequence[MatrixCell | None]


@dataclass(frozen=True, slots=True)
class MatrixView:
    """The matrix of one prompt list."""

    split: str
    columns: Sequence[tuple[str, str]]  # title and role of each reward
    rows: Sequence[MatrixRow]


def matrix_views(report: Report) -> list[MatrixView]:
    """The matrix of a held-out list first; empty unless models were trained on several rewards."""
    if len({model.trained_on for model in report.compared if model.trained_on}) < 2:
        return []
    rewards = rewards_of(report, "trained", "heldout", "asked", "artefact")
    first = min(report.splits, key=lambda s: (s.role != "unseen_animals", s.role == "seen"))
    splits = [first, *(split for split in report.splits if split is not first)]
    columns = [(reward_title(reward.id), role_text(reward.role)) for reward in rewards]
    return [
        MatrixView(
            split_title(split.name),
            columns,
            [_row(report, model, split, rewards) for model in report.compared],
        )
        for split in splits
    ]


def _row(
    report: Report, model: ModelFacts, split: SplitFacts, rewards: Sequence[RewardFacts]
) -> MatrixRow:
    own = next((reward for reward in rewards if reward.id == model.trained_on), None)
    cells = []
    for reward in rewards:
        gains = gains_of(report, model=model.name, reward=reward.id, split=split.name)
        cells.append(_cell(gains[0], reward, own) if gains else None)
    trained_on = reward_title(model.trained_on) or "unknown"
    return MatrixRow(model.name, trained_on, model_class(report, model.name), cells)


def _cell(gain: Gain, reward: RewardFacts, own: RewardFacts | None) -> MatrixCell | None:
    z = gain.z
    if z.mean != z.mean:
        return None
    sign = ""
    if not z.covers_zero:
        sign = "▲ " if z.mean > 0 else "▼ "
    kind = _kind(gain, reward)
    has_shared_lineage = (
        own is not None and own is not reward and bool(_lineage(own) & _lineage(reward))
    )
    return MatrixCell(
        f"{kind} own" if own is reward else kind,
        sign + mean_text(z),
        range_text(z.low, z.high) if z.low == z.low else "no interval",
        has_shared_lineage,
    )


def _kind(gain: Gain, reward: RewardFacts) -> str:
    """The colour of a cell: green for better and red for worse, neither for pixel statistics."""
    if gain.z.covers_zero:
        return "same"
    if reward.role == "artefact":
        return "moved"
    is_lower_better = reward.card.get("direction") == "lower"
    return "fall" if (gain.z.mean > 0) == is_lower_better else "rise"


def _lineage(reward: RewardFacts) -> set[str]:
    return {str(item) for item in reward.card.get("lineage", ())}
