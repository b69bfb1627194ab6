"""Views of the foundations of a report: reward cards, leaks, prompts, sampling and manifests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ddpo.eval.report.data import Report, RewardFacts
from ddpo.eval.report.selection import reward_role, reward_unit
from ddpo.eval.report.table_views import TableRow
from ddpo.eval.report.wording import count, number, reward_title, shortened, split_title

__all__ = ["CardView", "card_views", "manifest_views", "model_rows", "sampling_facts"]

Fact = tuple[str, str]  # name and value
LIST_ITEMS: Final = 60  # items of a list that are shown
ITEM_LENGTH: Final = 160  # characters of each
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
"""Fields of a card that are shown → their names for readers."""
SPLIT_WORDS: Final = {
    "seen": "used in training",
    "near": "close to training prompts",
    "unseen_animals": "animals that training never used",
    "objects": "objects instead of animals",
    "activities": "activities that training never used",
    "external": "other prompts",
}
"""Roles of a prompt list → words for readers."""


@dataclass(frozen=True, slots=True)
class CardView:
    """The card of a reward with its noise floor and signature."""

    title: str
    role: str
    facts: Sequence[Fact]


def card_views(report: Report) -> list[CardView]:
    """The cards of all rewards."""
    return [
        CardView(reward_title(r.id), reward_role(report, r), _card_facts(report, r))
        for r in report.rewards
    ]


def _card_facts(report: Report, reward: RewardFacts) -> list[Fact]:
    facts = [
        (name, plain(reward.card[field]))
        for field, name in CARD_FACTS.items()
        if reward.card.get(field) not in (None, "", [], (), {})
    ]
    floor = "not measured"
    if reward.noise_floor == reward.noise_floor:
        floor = f"{number(reward.noise_floor)} {reward_unit(report, reward.id)}".strip()
    return [*facts, ("noise floor", floor), ("signature", reward.signature)]


def sampling_facts(report: Report) -> list[Fact]:
    """The prompt lists with their notes, and the settings of the sampler."""
    facts = []
    for split in report.splits:
        source = split.source or "source not stated"
        prompts = count(split.prompts, "prompt")
        text = ", ".join((prompts, SPLIT_WORDS.get(split.role, split.role), source))
        facts.append((split_title(split.name), " ".join((f"{text}.", *split.notes))))
    settings = ", ".join(f"{name} {value}" for name, value in report.sampler.items())
    if settings:
        made = f"noise seed {report.seed}; sampler: {settings}"
    else:
        made = "not sampled by ddpo: base and tuned images are paired by name"
    return [*facts, ("sampling", f"{count(report.seeds, 'image')} per prompt and model; {made}")]


def model_rows(report: Report) -> list[TableRow]:
    """The models with the facts about their runs; the last cell is the start of their SHA-256."""
    return [
        TableRow(
            (
                model.name,
                model.checkpoint,
                model.kind,
                reward_title(model.trained_on) or "–",
                _known(model.iteration),
                _known(model.queries),
                _known(model.training_seed),
                model.identity[:16] or "–",
            )
        )
        for model in report.models
    ]


def manifest_views(report: Report) -> list[tuple[str, list[Fact]]]:
    """The names and the flattened values of the manifests."""
    return [(name, _flattened(values)) for name, values in report.manifests.items()]


def _known(value: int) -> str:
    return "–" if value < 0 else str(value)


def _flattened(values: Any, prefix: str = "") -> list[Fact]:
    """Dotted names and short texts of nested JSON values."""
    if not isinstance(values, Mapping):
        return [(prefix or "value", plain(values))]
    facts: list[Fact] = []
    for name, value in values.items():
        facts += _flattened(value, f"{prefix}.{name}" if prefix else str(name))
    return facts


def plain(value: Any) -> str:
    """A JSON value as short text."""
    if not isinstance(value, list | tuple):
        return str(value)
    texts = [shortened(plain(item), ITEM_LENGTH) for item in value]
    rest = f" … ({len(texts)} in all)" if len(texts) > LIST_ITEMS else ""
    return ", ".join(texts[:LIST_ITEMS]) + rest
