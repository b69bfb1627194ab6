"""Short HTML of cards and runs for notebooks."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any, Final

from ddpo.thumbnails import data_address

if TYPE_CHECKING:
    from ddpo.api.runs import Run
    from ddpo.rewards.card import RewardCard

__all__ = ["card_html", "facts_html", "run_html"]

WIDE: Final = 320  # pixels of the longer side of a grid


def facts_html(title: str, facts: Mapping[str, object]) -> str:
    """A heading and a table of facts, without those that are empty."""
    rows = "".join(
        f"<tr><th style='text-align:left'>{escape(name)}</th>"
        f"<td style='text-align:left'>{escape(str(value))}</td></tr>"
        for name, value in facts.items()
        if value not in ("", None)
    )
    return f"<b>{escape(title)}</b><table>{rows}</table>"


def card_html(card: RewardCard) -> str:
    """The facts of a reward that its user must know."""
    from ddpo.rewards.tools.card_pages import needs, scale

    options = ", ".join(f"{option.name}={option.default}" for option in card.options)
    facts = {
        "scale": scale(card),
        "needs": needs(card),
        "options": options,
        "known flaws": card.flaws,
        "source": card.paper,
    }
    return facts_html(f"{card.id}: {card.summary}", facts)


def run_html(run: Run) -> str:
    """The state of a run, with its first and its last grid of images."""
    config = run.config
    metrics = run.metrics
    facts: dict[str, object] = {
        "reward": config.reward,
        "model": config.model,
        "algorithm": config.algorithm,
        "iterations": f"{len(metrics)} of {config.iterations}",
    }
    if len(metrics):
        means = metrics["reward_mean"]
        facts["mean reward"] = f"{means.iloc[0]:.4g} at first, {means.iloc[-1]:.4g} at last"
    grids: dict[int, Any] = run.samples()
    figures = "".join(
        f"<figure style='display:inline-block;margin:2px'><img src='{data_address(grid, WIDE)}'>"
        f"<figcaption>iteration {iteration}</figcaption></figure>"
        for iteration, grid in [*grids.items()][:: max(1, len(grids) - 1)]
    )
    return facts_html(str(run.path), facts) + figures
