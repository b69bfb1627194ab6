"""`ddpo rewards download`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ddpo.cli.console import escape, new_console

if TYPE_CHECKING:
    from ddpo.rewards.tools.availability import WeightState


def download_command(
    names: Annotated[list[str], typer.Argument(help="Rewards of `ddpo rewards list`.")],
) -> None:
    """Fetch and verify the weights of rewards; downloads from the hub resume."""

    from ddpo.rewards.tools.availability import check_space_for, weight_state
    from ddpo.rewards.zoo import resolve

    console = new_console()
    named = [resolve(name).card for name in names]
    cards = list({(card.id, card.weights): card for card in named}.values())
    states = [[weight_state(weight) for weight in card.weights] for card in cards]
    check_space_for(list({state.weight: state for found in states for state in found}.values()))
    for card, found in zip(cards, states, strict=True):
        if not card.weights:
            console.print(
                f"{escape(card.id)} needs no weights: nothing to download", soft_wrap=True
            )
        for state in found:
            _fetch(state, card.id)


def _fetch(state: WeightState, reward: str) -> None:
    """Fetches one file or repository and prints its path."""

    from ddpo.rewards.tools.availability import fetch_weight

    path = fetch_weight(state.weight, reward, progress=True)
    checked = f"revision {state.weight.revision}, the card gives no SHA-256"
    if state.weight.sha256:
        checked = "SHA-256 as on the card"
    new_console().print(f"{escape(reward)}: {escape(str(path))} ({checked})", soft_wrap=True)
