"""`ddpo rewards list`, which imports no torch, numpy or PIL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from ddpo.cli.commands import examples
from ddpo.cli.console import escape, new_console, print_json, simple_table
from ddpo.cli.options import INPUT, AsJson, option
from ddpo.text import count

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.table import Table

    from ddpo.doctor.reward_states import RewardState
    from ddpo.rewards.card import RewardCard

Row = tuple[str, "RewardCard", str]
"""Expression, card and origin of a reward."""


@examples(
    "ddpo rewards list",
    "ddpo rewards list --family pixels",
    "ddpo rewards list --available --json",
)
def list_command(
    as_json: AsJson = False,
    family: Annotated[
        str | None,
        option("The only family to list, such as pixels or clip.", metavar="FAMILY", panel=INPUT),
    ] = None,
    available: Annotated[
        bool,
        option("Rewards whose libraries and weights are here only.", "--available", panel=INPUT),
    ] = False,
) -> None:
    """List the rewards of ddpo and of installed packages; broken ones with their cause."""
    from ddpo.doctor.reward_states import reward_state
    from ddpo.rewards.cards.embedded import with_variant
    from ddpo.rewards.zoo import rewards

    cards, failures = rewards.available()
    shown = _chosen(
        [
            (name, card, rewards.origin(id))
            for id, own in cards.items()
            for name, card in with_variant(own, rewards.origin(id)).items()
        ],
        family,
        available,
    )
    states = {name: reward_state(name, card, origin) for name, card, origin in shown}
    if as_json:
        records: list[dict[str, Any]] = [
            {**card.to_dict(), "id": name, "origin": origin, "state": states[name].state}
            for name, card, origin in shown
        ]
        records += [
            {"id": name, "origin": rewards.origin(name), "state": "broken", "broken": str(error)}
            for name, error in failures.items()
        ]
        print_json(records)
        return

    console = new_console()
    console.print(_list_table(shown, states))
    listed = sum(name == card.id for name, card, _ in shown)
    if listed < len(cards):
        console.print(f"{listed} of {len(cards)} rewards")
        if small := len(shown) - listed:
            console.print(count(small, "embedded variant"))
    for error in failures.values():
        console.print(f"[red]broken[/red]  {escape(str(error))}", soft_wrap=True)


def _chosen(rows: list[Row], family: str | None, available: bool) -> list[Row]:
    if family is not None:
        from ddpo.registry import unknown_name

        families = {card.family for _, card, _ in rows}
        if family not in families:
            raise unknown_name("family", family, families)
        rows = [row for row in rows if row[1].family == family]
    if available:
        from ddpo.rewards.tools.availability import availability

        rows = [row for row in rows if availability(row[1], row[2]).complete]
    return rows


def _list_table(rows: list[Row], states: Mapping[str, RewardState]) -> Table:
    table = simple_table()
    table.add_column("reward", no_wrap=True, style="bold")
    table.add_column("state", no_wrap=True)
    table.add_column("measures", ratio=3)
    table.add_column("unit", ratio=2)
    table.add_column("needs", ratio=1)
    with_origin = any(origin != "ddpo" for _, _, origin in rows)
    if with_origin:
        table.add_column("from", ratio=1)
    for name, card, origin in rows:
        state = states[name].state
        color = "green" if state == "ready" else "yellow"
        cells = [
            name,
            f"[{color}]{state}[/{color}]",
            escape(card.summary),
            escape(card.unit),
            escape(card.needs_text),
        ]
        table.add_row(*cells, *([escape(origin)] if with_origin else []))
    return table
