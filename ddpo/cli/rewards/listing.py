"""`ddpo rewards list` and `show`. Nothing heavy is imported."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ddpo.cli.markup import escape

if TYPE_CHECKING:
    from rich.table import Table

    from ddpo.rewards.card import RewardCard
    from ddpo.rewards.tools.availability import Availability
    from ddpo.rewards.zoo import ResolvedReward

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def list_command(
    as_json: Json = False,
    family: Annotated[
        str | None, typer.Option(help="Only rewards of this family, such as pixels or clip.")
    ] = None,
    available: Annotated[
        bool, typer.Option("--available", help="Only rewards whose libraries and weights are here.")
    ] = False,
) -> None:
    """All rewards, built in and of installed packages; broken ones with their cause."""
    from ddpo.rewards.zoo import rewards

    cards, failures = rewards.available()
    shown = _chosen(
        [(card, rewards.origin(name)) for name, card in cards.items()], family, available
    )
    if as_json:
        records: list[dict[str, Any]] = [
            {**card.to_dict(), "origin": origin} for card, origin in shown
        ]
        records += [
            {"id": name, "origin": rewards.origin(name), "broken": str(error)}
            for name, error in failures.items()
        ]
        typer.echo(json.dumps(records, indent=2, ensure_ascii=False))
        return
    from rich.console import Console

    console = Console()
    console.print(_list_table(shown))
    if len(shown) < len(cards):
        console.print(f"{len(shown)} of {len(cards)} rewards")
    for error in failures.values():
        console.print(f"[red]broken[/red]  {escape(str(error))}", soft_wrap=True)


def _chosen(
    cards: list[tuple[RewardCard, str]], family: str | None, available: bool
) -> list[tuple[RewardCard, str]]:
    if family is not None:
        from ddpo.registry import unknown_name

        families = {card.family for card, _ in cards}
        if family not in families:
            raise unknown_name("family", family, families)
        cards = [(card, origin) for card, origin in cards if card.family == family]
    if available:
        from ddpo.rewards.tools.availability import availability

        cards = [(card, origin) for card, origin in cards if availability(card, origin).complete]
    return cards


def _list_table(cards: list[tuple[RewardCard, str]]) -> Table:
    from rich import box
    from rich.table import Table

    from ddpo.rewards.tools.card_pages import needs

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("reward", no_wrap=True, style="bold")
    table.add_column("measures", ratio=3)
    table.add_column("unit", ratio=2)
    table.add_column("needs", ratio=1)
    with_origin = any(origin != "ddpo" for _, origin in cards)
    if with_origin:
        table.add_column("from", ratio=1)
    for card, origin in cards:
        cells = [card.id, escape(card.summary), escape(card.unit), escape(needs(card))]
        table.add_row(*cells, *([escape(origin)] if with_origin else []))
    return table


def show_command(
    name: Annotated[
        str,
        typer.Argument(
            help="A reward of `ddpo rewards list`, ./file.py:Object or package.module:Object."
        ),
    ],
    as_json: Json = False,
) -> None:
    """Everything that is known about one reward: scale, flaws, licences, options, known scores, whether its weights are here."""
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
        typer.echo(json.dumps(record, indent=2, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for label, text in _facts(found, here):
        table.add_row(label, escape(text))
    Console().print(table)


def _record(here: Availability) -> dict[str, Any]:
    weights = [
        {
            "source": w.weight.source,
            "path": None if w.path is None else str(w.path),
            "bytes": w.bytes,
        }
        for w in here.weights
    ]
    return {
        "complete": here.complete,
        "missing_libraries": list(here.missing_libraries),
        "weights": weights,
    }


def _facts(found: ResolvedReward, here: Availability) -> list[tuple[str, str]]:
    from ddpo.rewards.tools.card_pages import needs, scale

    card = found.card
    typical = "not stated"
    if card.typical:
        typical = (
            " / ".join(f"{value:g}" for value in card.typical)
            + f"   (5th / 50th / 95th percentile; {card.typical_source})"
        )
    return [
        ("reward", f"{card.id}, version {card.version}, from {found.origin}, family {card.family}"),
        ("measures", card.summary),
        ("known flaws", card.flaws),
        ("scale", scale(card)),
        ("better", card.direction),
        ("typical", typical),
        (
            "judges",
            " + ".join(card.inputs)
            + (f"   (metadata: {', '.join(card.metadata)})" if card.metadata else ""),
        ),
        ("needs", needs(card)),
        (
            "pixels",
            card.preprocessing
            if card.preprocessing.startswith(card.pixels)
            else f"{card.pixels}; {card.preprocessing or 'not stated'}",
        ),
        (
            "computed in",
            f"{card.dtype}, on {'any device' if card.device == 'any' else 'the CPU'}, about {card.memory_mb} MB",
        ),
        ("properties", ", ".join(_properties(card))),
        ("calls", _calls(card)),
        ("cache", "scores are kept" if card.cache and card.deterministic else _why_not_kept(card)),
        ("backbone", card.backbone or "none that is shared"),
        ("code licence", card.code_licence),
        ("paper", card.paper or "none"),
        ("lineage", ", ".join(card.lineage) or "none"),
        *_weight_facts(here),
        *[("option", f"{option.name}={option.default}   {option.help}") for option in card.options],
        *_golden_facts(card),
        ("signature", found.signature),
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


def _why_not_kept(card: RewardCard) -> str:
    return (
        "scores are not kept: computing one is cheaper than looking it up"
        if card.deterministic
        else "scores are not kept: they vary"
    )


def _weight_facts(here: Availability) -> list[tuple[str, str]]:
    facts = (
        [("libraries", f"missing: {', '.join(here.missing_libraries)}; {here.install}")]
        if here.missing_libraries
        else []
    )
    for state in here.weights:
        weight = state.weight
        place = f"here, {state.bytes / 1e6:,.4g} MB: {state.path}" if state.path else "not here"
        if state.path is None and state.bytes:
            place += f", {state.bytes / 1e6:,.4g} MB of it are"
        hashed = f"SHA-256 {weight.sha256 or 'none'}"
        facts.append(
            (
                "weights",
                f"{weight.source} @ {weight.revision[:12]}, {weight.size}, {weight.licence}, {hashed}; {place}",
            )
        )
    return facts


def _golden_facts(card: RewardCard) -> list[tuple[str, str]]:
    facts = []
    for source, tolerance in dict.fromkeys(
        (golden.source, golden.tolerance) for golden in card.golden
    ):
        scores = ", ".join(
            f"{g.fixture} {g.score:.9g}"
            for g in card.golden
            if (g.source, g.tolerance) == (source, tolerance)
        )
        facts.append(("known scores", f"{scores}, ± {tolerance:g}   ({source})"))
    return facts
