"""What changed that nobody asked for: pixel statistics, the variety of the pictures, and their dependence on the prompt."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from ddpo.eval.analysis.diversity import DiversityChange
from ddpo.eval.analysis.prompt_dependence import Dependence
from ddpo.eval.report.choice import gains_of, model_class, rewards_of
from ddpo.eval.report.data import Report
from ddpo.eval.report.forest import Group, Line, forest_table, interval_mark
from ddpo.eval.report.intervals import Axis, Mark
from ddpo.eval.report.tags import details, section, table
from ddpo.eval.report.wording import estimate_text, number, split_title

__all__ = ["artefact_section", "variety_section"]

MANY = "One mark for each prompt list, in the order of the lists. "
SCOPES = {"within": "between pictures of one prompt", "across": "between prompts"}
TESTS = {
    "swap": "swap test: how far a picture moves when only its prompt changes",
    "explained": "share of the variance between pictures that their prompts explain (ω²)",
}


def artefact_section(report: Report) -> str:
    """Effect sizes of the pixel statistics; empty without any."""
    rewards = rewards_of(report, "artefact")
    gains = [gain for reward in rewards for gain in gains_of(report, reward=reward.id)]
    if not gains:
        return ""
    axis = Axis.over([interval_mark(g.z, g.role) for g in gains], 0.0, "standard deviations")
    groups = []
    for reward in rewards:
        lines = [_artefact_line(report, model.name, reward.id) for model in report.compared]
        groups.append(
            Group(
                f'{escape(reward.id)} <small class="soft">{escape(str(reward.card.get("summary", "")))}</small>',
                lines,
            )
        )
    plot = forest_table(
        "Pixel statistics",
        ("statistic and model", "training prompts", "largest elsewhere"),
        groups,
        axis,
    )
    head = ("statistic", "model", "prompts", "base", "tuned", "change", "in standard deviations")
    rows = [
        (
            escape(g.reward),
            escape(g.model),
            escape(split_title(g.split)),
            number(g.paired.base_mean),
            number(g.paired.tuned_mean),
            estimate_text(g.paired.gain),
            estimate_text(g.z),
        )
        for g in gains
    ]
    numbers = details(
        "All numbers",
        table(
            "Pixel statistics, all numbers",
            head,
            rows,
            [model_class(report, g.model) for g in gains],
        ),
    )
    told = (
        "Pixel statistics, which a model can move without drawing better pictures: change in standard deviations of the base model’s "
        f"pictures of one prompt, with 95 % intervals. {MANY}A large change is not wrong in itself; look whether the prompt asked for it."
    )
    return section("artefacts", "Artefacts", plot + numbers, told)


def _artefact_line(report: Report, model: str, reward: str) -> Line:
    gains = gains_of(report, model=model, reward=reward)
    seen, others = (
        [g for g in gains if g.role == "seen"],
        [g for g in gains if g.role != "seen" and math.isfinite(g.z.mean)],
    )
    furthest = max(others, key=lambda g: abs(g.z.mean), default=None)
    elsewhere = (
        f"{estimate_text(furthest.z)} <small class='soft'>{escape(split_title(furthest.split))}</small>"
        if furthest
        else "–"
    )
    cells = ("; ".join(estimate_text(g.z) for g in seen) or "–", elsewhere)
    return Line(
        escape(model),
        [interval_mark(g.z, g.role) for g in gains],
        cells,
        model_class(report, model),
    )


def variety_section(report: Report) -> str:
    """Diversity and prompt dependence as ratios; empty without any."""
    groups = [(f"{change.measure}, {SCOPES[change.scope]}", change) for change in report.diversity]
    tests = [(TESTS.get(change.test, change.test), change) for change in report.dependence]
    parts = []
    for title, found in (("Diversity", groups), ("Prompt dependence", tests)):
        if found:
            parts.append(f"<h3>{title}</h3>{_ratios(report, title, found)}")
    told = (
        f"Ratios, after training over before, with 95 % intervals; the dashed line at 1 is no change. {MANY}Below 1, pictures resemble "
        "each other more, or depend less on what the prompt says."
    )
    return (
        section("variety", "Diversity and prompt dependence", "".join(parts), told) if parts else ""
    )


def _ratios(
    report: Report, label: str, found: Sequence[tuple[str, DiversityChange | Dependence]]
) -> str:
    roles = {split.name: split.role for split in report.splits}
    axis = Axis.over(
        [_ratio_mark(change, roles[change.split]) for _, change in found],
        1.0,
        "ratio, tuned / base",
    )
    groups = []
    for title in dict.fromkeys(title for title, _ in found):
        lines = []
        for model in report.compared:
            own = [change for name, change in found if (name, change.model) == (title, model.name)]
            if any(math.isfinite(change.ratio) for change in own):
                seen = [change for change in own if roles[change.split] == "seen"]
                lowest = min((c for c in own if math.isfinite(c.ratio)), key=lambda c: c.ratio)
                cells = (
                    "; ".join(_ratio_text(change) for change in seen) or "–",
                    f"{_ratio_text(lowest)} <small class='soft'>{escape(split_title(lowest.split))}</small>",
                )
                marks = [_ratio_mark(change, roles[change.split]) for change in own]
                lines.append(
                    Line(escape(model.name), marks, cells, model_class(report, model.name))
                )
        groups.append(Group(escape(title), lines))
    plot = forest_table(label, ("measure and model", "training prompts", "lowest"), groups, axis)
    head = ("measure", "model", "prompts", "base", "tuned", "ratio", "prompts used")
    rows = [
        (
            escape(title),
            escape(c.model),
            escape(split_title(c.split)),
            number(c.base),
            number(c.tuned),
            _ratio_text(c),
            str(c.prompts),
        )
        for title, c in found
    ]
    return plot + details(
        "All numbers",
        table(
            f"{label}, all numbers", head, rows, [model_class(report, c.model) for _, c in found]
        ),
    )


def _ratio_mark(change: DiversityChange | Dependence, role: str) -> Mark:
    return Mark(change.ratio, change.low, change.high, "seen" if role == "seen" else "heldout")


def _ratio_text(change: DiversityChange | Dependence) -> str:
    if math.isnan(change.ratio):
        return "not measured"
    return f"{number(change.ratio)} ({number(change.low)} to {number(change.high)})"
