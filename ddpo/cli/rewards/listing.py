"""`ddpo rewards list` and `show`. Nothing heavy is imported."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ddpo.cli.markup import escape

if TYPE_CHECKING:
    from rich.table import Table

    from ddpo.rewards.card import RewardCard
    from ddpo.rewards.zoo import ResolvedReward

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def list_command(as_json: Json = False) -> None:
    """All rewards, built in and of installed packages; broken ones with their cause."""
    from ddpo.rewards.zoo import rewards

    cards, failures = rewards.available()
    if as_json:
        records: list[dict[str, Any]] = [{**card.to_dict(), "origin": rewards.origin(name)} for name, card in cards.items()]
        records += [{"id": name, "origin": rewards.origin(name), "broken": str(error)} for name, error in failures.items()]
        typer.echo(json.dumps(records, indent=2, ensure_ascii=False))
        return
    from rich.console import Console

    console = Console()
    console.print(_list_table([(card, rewards.origin(name)) for name, card in cards.items()]))
    for error in failures.values():
        console.print(f"[red]broken[/red]  {escape(str(error))}", soft_wrap=True)


def _list_table(cards: list[tuple[RewardCard, str]]) -> Table:
    from rich import box
    from rich.table import Table

    from ddpo.rewards.table import needs

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
    name: Annotated[str, typer.Argument(help="A reward of `ddpo rewards list`, ./file.py:Object or package.module:Object.")],
    as_json: Json = False,
) -> None:
    """Everything that is known about one reward: scale, flaws, licences, options, known scores."""
    from ddpo.rewards.zoo import resolve

    found = resolve(name)
    if as_json:
        typer.echo(json.dumps({**found.card.to_dict(), "origin": found.origin, "signature": found.signature}, indent=2, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for label, text in _facts(found):
        table.add_row(label, escape(text))
    Console().print(table)


def _facts(found: ResolvedReward) -> list[tuple[str, str]]:
    from ddpo.rewards.table import needs, scale

    card = found.card
    typical = "not stated"
    if card.typical:
        typical = " / ".join(f"{value:g}" for value in card.typical) + f"   (5th / 50th / 95th percentile; {card.typical_source})"
    facts = [
        ("reward", f"{card.id}, version {card.version}, from {found.origin}"),
        ("measures", card.summary),
        ("known flaws", card.flaws),
        ("scale", scale(card)),
        ("better", card.direction),
        ("typical", typical),
        ("judges", " + ".join(card.inputs)),
        ("needs", needs(card)),
        ("pixels", f"{card.pixels}; {card.preprocessing or 'preprocessing not stated'}"),
        ("computed in", f"{card.dtype}, on {'any device' if card.device == 'any' else 'the CPU'}, about {card.memory_mb} MB"),
        ("properties", ", ".join(_properties(card))),
        ("code licence", card.code_licence),
        ("paper", card.paper or "none"),
        ("lineage", ", ".join(card.lineage) or "none"),
    ]
    facts += [
        ("weights", f"{w.source} @ {w.revision[:12]}, {w.megabytes:g} MB, {w.licence}, SHA-256 {w.sha256 or 'none'}") for w in card.weights
    ]
    facts += [("option", f"{option.name}={option.default}   {option.help}") for option in card.options]
    sources = dict.fromkeys((golden.source, golden.tolerance) for golden in card.golden)
    for source, tolerance in sources:
        scores = ", ".join(f"{g.fixture} {g.score:.9g}" for g in card.golden if (g.source, g.tolerance) == (source, tolerance))
        facts.append(("known scores", f"{scores}, ± {tolerance:g}   ({source})"))
    return [*facts, ("signature", found.signature)]


def _properties(card: RewardCard) -> list[str]:
    named = {"differentiable": card.differentiable, "deterministic": card.deterministic, "independent of batch mates": card.batch_invariant}
    return [name if holds else f"not {name}" for name, holds in named.items()]
