"""`ddpo rewards show`, which imports no torch, numpy or PIL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ddpo.cli.commands import examples
from ddpo.cli.console import escape, new_console, print_json
from ddpo.cli.options import AsJson, RewardName
from ddpo.errors import MissingResourceError, one_line
from ddpo.rewards.hub_cache import hub_repository, is_pinned
from ddpo.weights import hub_snapshot

if TYPE_CHECKING:
    from ddpo.rewards.card import RewardCard, WeightFile
    from ddpo.rewards.tools.availability import Availability, WeightState
    from ddpo.rewards.zoo import ResolvedReward

Fact = tuple[str, str]


@examples("ddpo rewards show aesthetic", "ddpo rewards show aesthetic --json")
def show_command(name: RewardName, as_json: AsJson = False) -> None:
    """Print the card of a reward: scale, flaws, licences, options, known scores and weights."""
    from ddpo.rewards.tools.availability import availability
    from ddpo.rewards.zoo import resolve

    found = resolve(name)
    here = availability(found.card, found.origin)
    if as_json:
        record = {
            **found.card.to_dict(),
            "origin": found.origin,
            "signature": found.signature,
            "available": _record(here),
        }
        print_json(record)
        return
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for label, text in _facts(found, here):
        table.add_row(label, escape(text))
    new_console().print(table)


def _commit(weight: WeightFile) -> str | None:
    """The commit of a hub repository that lies on this machine."""
    repository = hub_repository(weight)
    folder = None if repository is None else hub_snapshot(repository, weight.revision)
    return None if folder is None else folder.name


def _revision_text(weight: WeightFile) -> str:
    """The revision, and whether the card fixes the content."""
    commit = _commit(weight)
    if is_pinned(weight):
        return f"{weight.revision[:12]} (pinned)"
    here = f", here at commit {commit[:12]}" if commit else ""
    return f"{weight.revision[:12]} (floats{here})"


def _record(here: Availability) -> dict[str, Any]:
    weights = [
        {
            "source": state.weight.source,
            "path": None if state.path is None else str(state.path),
            "bytes": state.bytes,
            "pinned": is_pinned(state.weight),
            "commit": _commit(state.weight),
        }
        for state in here.weights
    ]
    return {
        "complete": here.complete,
        "missing_libraries": list(here.missing_libraries),
        "weights": weights,
    }


def _facts(found: ResolvedReward, here: Availability) -> list[Fact]:
    """Labels and values of all that the card says, and of what is on this machine."""
    card = found.card
    return [
        ("reward", f"{card.id}, version {card.version}, from {found.origin}, family {card.family}"),
        *_score_facts(card),
        *_computation_facts(card),
        ("backbone", card.backbone or "none that is shared"),
        ("code licence", card.code_licence),
        ("paper", card.paper or "none"),
        ("lineage", ", ".join(card.lineage) or "none"),
        *_weight_facts(here),
        *_embedded_facts(card),
        *[("option", f"{option.name}={option.default}   {option.help}") for option in card.options],
        *_golden_facts(card),
        ("signature", found.signature),
    ]


def _embedded_facts(card: RewardCard) -> list[Fact]:
    """The expression of the small variant that comes with the package."""
    from ddpo.rewards.cards.embedded import (
        EMBEDDED_REWARDS,
        embedded_card,
        embedded_name,
        is_embedded,
    )

    if card.id not in EMBEDDED_REWARDS or is_embedded(card):
        return []
    try:
        small = embedded_card(card)
    except MissingResourceError as error:
        return [("embedded", one_line(error))]
    size = sum(weight.megabytes for weight in small.weights)
    text = f"{embedded_name(card.id)}   {size:.2g} MB, part of ddpo: {small.summary}"
    return [("embedded", text)]


def _score_facts(card: RewardCard) -> list[Fact]:
    """Facts about the meaning of a score."""

    typical = "not stated"
    if card.typical:
        values = " / ".join(f"{value:g}" for value in card.typical)
        typical = f"{values}   (5th / 50th / 95th percentile; {card.typical_source})"
    judged = " + ".join(card.inputs)
    if card.metadata:
        judged += f"   (metadata: {', '.join(card.metadata)})"
    return [
        ("measures", card.summary),
        ("known flaws", card.flaws),
        ("scale", card.scale_text),
        ("better", card.direction),
        ("typical", typical),
        ("judges", judged),
        ("needs", card.needs_text),
    ]


def _computation_facts(card: RewardCard) -> list[Fact]:
    """Facts about the computation of a score."""
    pixels = f"{card.pixels}; {card.preprocessing or 'not stated'}"
    if card.preprocessing.startswith(card.pixels):
        pixels = card.preprocessing
    device = "any device" if card.device == "any" else "the CPU"
    return [
        ("pixels", pixels),
        ("computed in", f"{card.dtype}, on {device}, about {card.memory_mb} MB"),
        ("properties", ", ".join(_properties(card))),
        ("calls", _calls(card)),
        ("cache", _cache(card)),
    ]


def _properties(card: RewardCard) -> list[str]:
    named = {
        "differentiable": card.differentiable,
        "deterministic": card.deterministic,
        "independent of batch mates": card.batch_invariant,
        "thread-safe": card.thread_safe,
    }
    return [name if holds else f"not {name}" for name, holds in named.items()]


def _calls(card: RewardCard) -> str:
    calls = card.calls
    on_its_own = "one per processor" if card.thread_safe and card.device == "cpu" else "one"
    limit = "no time-out" if calls.timeout_s is None else f"at most {calls.timeout_s:g} s each"
    return f"{calls.concurrency or on_its_own} at once, {limit}, {calls.retries or 'no'} retries"


def _cache(card: RewardCard) -> str:
    if not card.deterministic:
        return "scores are not kept: they vary"
    if not card.cache:
        return "scores are not kept: computing one is cheaper than looking it up"
    return "scores are kept"


def _weight_facts(here: Availability) -> list[Fact]:
    facts = [("weights", _weight_text(state)) for state in here.weights]
    if here.missing_libraries:
        missing = f"missing: {', '.join(here.missing_libraries)}; {here.install}"
        facts.insert(0, ("libraries", missing))
    return facts


def _weight_text(state: WeightState) -> str:
    """Source, revision, size, licence and hash of weights, and how much of them is here."""
    weight = state.weight
    size = f"{state.bytes / 1e6:,.4g} MB"
    if state.path:
        place = f"here, {size}: {state.path}"
    elif state.bytes:
        place = f"not here, {size} of it are"
    else:
        place = "not here"
    return (
        f"{weight.source} @ {_revision_text(weight)}, {weight.size}, {weight.licence}, "
        f"SHA-256 {weight.sha256 or 'none'}; {place}"
    )


def _golden_facts(card: RewardCard) -> list[Fact]:
    """Known scores, those of one source and tolerance in one fact."""
    grouped: dict[tuple[str, float], list[str]] = {}
    for golden in card.golden:
        scores = grouped.setdefault((golden.source, golden.tolerance), [])
        scores.append(f"{golden.fixture} {golden.score:.9g}")
    return [
        ("known scores", f"{', '.join(scores)}, ± {tolerance:g}   ({source})")
        for (source, tolerance), scores in grouped.items()
    ]
