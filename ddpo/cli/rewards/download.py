"""`ddpo rewards download`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ddpo.cli.console import escape

if TYPE_CHECKING:
    from rich.progress import Progress

    from ddpo.rewards.tools.availability import WeightState


def download_command(
    names: Annotated[list[str], typer.Argument(help="Rewards of `ddpo rewards list`.")],
) -> None:
    """Fetch and verify the weights of rewards; an interrupted download resumes."""
    from rich.console import Console

    from ddpo.rewards.tools.availability import check_space_for, weight_state
    from ddpo.rewards.zoo import resolve

    console = Console()
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
    """Fetches one file or repository under a progress bar, and prints its path."""
    from rich.console import Console

    from ddpo.rewards.tools.availability import fetch_weight

    weight = state.weight
    with _progress() as progress:
        title = escape(weight.source.rpartition("/")[2])
        task = progress.add_task(title, total=None, start=False)

        def update(done: int, total: int | None) -> None:
            if not progress.tasks[task].started:
                progress.start_task(task)
            progress.update(task, completed=done, total=total)

        if not weight.source.startswith("http"):
            progress.stop()  # the hub's client shows bars of its own
        path = fetch_weight(weight, reward, update)
    checked = f"revision {weight.revision}, the card gives no SHA-256"
    if weight.sha256:
        checked = "SHA-256 as on the card"
    Console().print(f"{escape(reward)}: {escape(str(path))} ({checked})", soft_wrap=True)


def _progress() -> Progress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=Console(stderr=True), transient=True)
