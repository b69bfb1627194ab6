"""What the report rests on: the rewards' cards and signatures, leaks, prompts and sampling, the manifests."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any, Final

from ddpo.eval.report.choice import reward_role, reward_unit
from ddpo.eval.report.data import Report
from ddpo.eval.report.tags import details, facts, section, table
from ddpo.eval.report.wording import METHOD, count, number, shortened, split_title

__all__ = ["leaks_section", "manifest_section", "method_section", "rewards_section"]

LEAKS_SHOWN: Final = 100
CARD_FACTS: Final = {
    "summary": "measures",
    "flaws": "flaws",
    "unit": "unit",
    "direction": "better when",
    "version": "version",
    "family": "family",
    "preprocessing": "preprocessing",
    "lineage": "lineage",
    "paper": "paper",
    "code_licence": "licence of the code",
}


def rewards_section(report: Report) -> str:
    """Card, signature and noise floor of each reward."""
    parts = []
    for reward in report.rewards:
        told = [
            (name, plain(reward.card[key]))
            for key, name in CARD_FACTS.items()
            if reward.card.get(key) not in (None, "", [], (), {})
        ]
        unit = reward_unit(report, reward.id)
        known = reward.noise_floor == reward.noise_floor
        floor = (
            f"{number(reward.noise_floor)}{f' {unit}' if unit else ''}" if known else "not measured"
        )
        body = facts([*told, ("noise floor", floor), ("signature", reward.signature)])
        parts.append(
            details(
                f'<h3>{escape(reward.id)}</h3> <span class="soft">{escape(reward_role(report, reward))}</span>',
                body,
                css="reward",
            )
        )
    return section(
        "rewards", "Rewards", "".join(parts), "Only scores of one signature may be compared."
    )


def leaks_section(report: Report) -> str:
    """Held-out prompts that training gave away, list by list; says so if there are none."""
    parts = []
    for split in report.splits:
        if split.dropped:
            parts.append(
                f"<p>{count(split.dropped, 'prompt')} of {escape(split_title(split.name))} left out because of a leak.</p>"
            )
        if split.leaks:
            label = f"Prompts of {split_title(split.name)} that are not fully unseen"
            rows = [
                [_prompt(leak.heldout), _prompt(leak.train), escape(leak.reason)]
                for leak in split.leaks[:LEAKS_SHOWN]
            ]
            more = len(split.leaks) - LEAKS_SHOWN
            parts.append(
                f"<h3>{escape(label)}</h3>{table(label, ('held-out prompt', 'training prompt', 'why'), rows, words=True)}"
            )
            parts.append(f"<p>And {more} more, all in report.json.</p>" if more > 0 else "")
    found = (
        "".join(parts)
        or "<p>No held-out prompt was found among the training prompts, or too near to one.</p>"
    )
    return section(
        "leaks",
        "Leaks",
        found,
        "Held-out prompts that the training gave away. They stay in the numbers unless they are said to be left out.",
    )


def _prompt(text: str) -> str:
    return f"<bdi>{escape(shortened(text, 160))}</bdi>"


def method_section(report: Report) -> str:
    """How to read the page; what was drawn."""
    paragraphs = "".join(f"<p>{escape(text)}</p>" for text in METHOD)
    sources = [
        (
            split_title(split.name),
            f"{count(split.prompts, 'prompt')}, role {split.role}, {split.source or 'source not stated'}",
        )
        for split in report.splits
    ]
    notes = [(split_title(split.name), note) for split in report.splits for note in split.notes]
    settings = ", ".join(f"{name} {value}" for name, value in report.sampler.items())
    drawn = f"{count(report.seeds, 'picture')} per prompt and model"
    drawn += (
        f"; noise seed {report.seed}; sampler: {settings}"
        if settings
        else "; not drawn by ddpo: base and tuned pictures are paired by name"
    )
    return section(
        "method",
        "How to read this",
        f"{paragraphs}<h3>Prompts and sampling</h3>{facts([*sources, *notes, ('sampling', drawn)])}",
    )


def manifest_section(report: Report) -> str:
    """The models and what is known of their runs."""
    head = (
        "model",
        "checkpoint",
        "weights",
        "trained on",
        "iteration",
        "reward queries",
        "training seed",
        "SHA-256 of the weights",
    )
    rows = [
        (
            escape(m.name),
            escape(m.checkpoint),
            escape(m.kind),
            escape(m.trained_on or "–"),
            _known(m.iteration),
            _known(m.queries),
            _known(m.training_seed),
            f"<code>{escape(m.identity[:16] or '–')}</code>",
        )
        for m in report.models
    ]
    parts = [
        f"<p>Base model: <code>{escape(report.base)}</code></p>",
        table("Models", head, rows, words=True),
    ]
    parts += [
        details(f"Manifest: {escape(name)}", facts(_flat(values)))
        for name, values in report.manifests.items()
    ]
    return section("manifests", "How it was made", "".join(parts))


def _known(value: int) -> str:
    return "–" if value < 0 else str(value)


def _flat(values: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Dotted names and short texts of nested JSON values."""
    if not isinstance(values, Mapping):
        return [(prefix or "value", plain(values))]
    lines: list[tuple[str, str]] = []
    for name, value in values.items():
        lines += _flat(value, f"{prefix}.{name}" if prefix else str(name))
    return lines


def plain(value: Any) -> str:
    """A JSON value as short text."""
    if isinstance(value, list | tuple):
        texts = [shortened(plain(item), 160) for item in value]
        return ", ".join(texts[:60]) + (f" … ({len(texts)} in all)" if len(texts) > 60 else "")
    return str(value)
