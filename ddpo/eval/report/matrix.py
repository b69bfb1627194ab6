"""The cross-reward matrix: what each reward thinks of the models that were trained on each reward."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ddpo.eval.analysis.tables import Gain
from ddpo.eval.inputs.models import ModelFacts
from ddpo.eval.report.choice import gains_of, model_class, rewards_of
from ddpo.eval.report.data import Report, RewardFacts, SplitFacts
from ddpo.eval.report.tags import details, scrolled, section
from ddpo.eval.report.wording import number, role_text, split_title
from ddpo.stats.paired import Estimate

__all__ = ["matrix_section"]


def matrix_section(report: Report) -> str:
    """The matrix of one held-out list, and of the other lists to open; empty unless models were trained on several rewards."""
    if len({model.trained_on for model in report.compared if model.trained_on}) < 2:
        return ""
    rewards = rewards_of(report, "trained", "heldout", "asked", "artefact")
    main = min(
        report.splits, key=lambda split: (split.role != "unseen_animals", split.role == "seen")
    )
    others = [split for split in report.splits if split is not main]
    parts = [f"<h3>{escape(split_title(main.name))}</h3>{_matrix(report, main, rewards)}"]
    parts += [
        details(f"The same on {escape(split_title(split.name))}", _matrix(report, split, rewards))
        for split in others
    ]
    told = (
        "Gain of each reward (columns) for each model (rows), in standard deviations of the base model, with the 95 % interval. ▲ and ▼: "
        "the interval leaves out 0. A boxed cell is the reward that the model was trained on. “Shared lineage” marks rewards built on the "
        "same backbone or data as that one: they are no independent witness."
    )
    return section("matrix", "Cross-reward matrix", "".join(parts), told)


def _matrix(report: Report, split: SplitFacts, rewards: Sequence[RewardFacts]) -> str:
    head = '<th scope="col" class="l">model, trained on</th>' + "".join(
        f'<th scope="col">{escape(reward.id)}<br><small>{escape(role_text(reward.role))}</small></th>'
        for reward in rewards
    )
    rows = "".join(_row(report, model, split, rewards) for model in report.compared)
    label = f"Cross-reward matrix on {split_title(split.name)}"
    return scrolled(
        label,
        f'<table class="matrix"><caption class="away">{escape(label)}</caption><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>',
    )


def _row(
    report: Report, model: ModelFacts, split: SplitFacts, rewards: Sequence[RewardFacts]
) -> str:
    own = next((reward for reward in rewards if reward.id == model.trained_on), None)
    line = f'<th scope="row">{escape(model.name)}<br><small class="soft">{escape(model.trained_on or "unknown")}</small></th>'
    line += "".join(_cell(report, model, split, reward, own) for reward in rewards)
    return f'<tr class="{model_class(report, model.name)}">{line}</tr>'


def _cell(
    report: Report,
    model: ModelFacts,
    split: SplitFacts,
    reward: RewardFacts,
    own: RewardFacts | None,
) -> str:
    gain = next(iter(gains_of(report, model=model.name, reward=reward.id, split=split.name)), None)
    if gain is None or gain.z.mean != gain.z.mean:
        return "<td>–</td>"
    css, sign = _look(gain, reward)
    diagonal = " own" if own is reward else ""
    shared = own is not None and own is not reward and bool(_lineage(own) & _lineage(reward))
    kin = "<br><small>shared lineage</small>" if shared else ""
    return f'<td class="{css}{diagonal}"><b>{sign}{number(gain.z.mean, 2, signed=True)}</b><br><small>{_interval(gain.z)}</small>{kin}</td>'


def _look(gain: Gain, reward: RewardFacts) -> tuple[str, str]:
    """Class and sign of a cell: green is better and red is worse, but for pixel statistics, which have no better and worse."""
    if gain.z.covers_zero:
        return "same", ""
    rose = gain.z.mean > 0
    better = rose != (reward.card.get("direction") == "lower")
    return (
        "moved" if reward.role == "artefact" else "rise" if better else "fall",
        "▲ " if rose else "▼ ",
    )


def _interval(z: Estimate) -> str:
    return (
        f"{number(z.low, 2, signed=True)} to {number(z.high, 2, signed=True)}"
        if z.low == z.low
        else "no interval"
    )


def _lineage(reward: RewardFacts) -> set[str]:
    return {str(item) for item in reward.card.get("lineage", ())}
