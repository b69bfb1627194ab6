"""Short HTML for notebooks: cards, runs and strips of images."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from PIL import Image

    from ddpo.api.runs import Run
    from ddpo.rewards.card import RewardCard

__all__ = ["card_html", "facts_html", "run_html", "strip_html"]

SHOWN: Final = 8  # images of a strip
SIDE: Final = 96  # pixels of its images
WIDE: Final = 640  # pixels of the longer side of a grid


def facts_html(title: str, facts: Mapping[str, object]) -> str:
    """A heading and a table of facts, without those that are empty."""
    rows = "".join(
        f"<tr><th style='text-align:left'>{escape(name)}</th>"
        f"<td style='text-align:left'>{escape(str(value))}</td></tr>"
        for name, value in facts.items()
        if value not in ("", None)
    )
    return f"<b>{escape(title)}</b><table>{rows}</table>"


def strip_html(images: Sequence[Image.Image], captions: Sequence[str]) -> str:
    """The first images side by side, each with its caption."""
    figures = "".join(
        "<figure style='display:inline-block;margin:2px'>"
        f"<img src='{_address(image, SIDE)}' alt='{escape(caption, quote=True)}' "
        f"title='{escape(caption, quote=True)}'></figure>"
        for image, caption in zip(images[:SHOWN], captions[:SHOWN], strict=True)
    )
    left = len(images) - SHOWN
    return f"<div>{figures}{f' and {left} more' if left > 0 else ''}</div>"


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
        f"<figure style='display:inline-block;margin:2px'><img src='{_address(grid, WIDE // 2)}'>"
        f"<figcaption>iteration {iteration}</figcaption></figure>"
        for iteration, grid in [*grids.items()][:: max(1, len(grids) - 1)]
    )
    return facts_html(str(run.path), facts) + figures


def _address(image: Image.Image, side: int) -> str:
    """The image as a data address, its longer side at most `side` pixels."""
    small = image.copy()
    small.thumbnail((side, side))
    file = BytesIO()
    small.save(file, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
