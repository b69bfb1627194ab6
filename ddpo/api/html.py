"""Short HTML of runs for notebooks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from ddpo.errors import ImageError
from ddpo.text import facts_html
from ddpo.thumbnails import MOST_BYTES, data_address

if TYPE_CHECKING:
    from ddpo.api.runs import Run

__all__ = ["run_html"]

WIDE: Final = 320  # pixels of the longer side of a grid
GRIDS: Final = 2


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
    grids = [*run.grids().items()]
    shown = grids[:: max(1, len(grids) - 1)]
    return facts_html(str(run.path), facts) + "".join(_figure(*grid) for grid in shown)


def _figure(iteration: int, file: Path) -> str:
    """A grid with its caption; "" for a file that cannot be read."""
    from ddpo.images import load_image

    try:
        address = data_address(load_image(file), WIDE, MOST_BYTES // GRIDS)
    except ImageError:
        return ""
    caption = f"iteration {iteration}" if iteration else "before training"
    return (
        f"<figure style='display:inline-block;margin:2px'><img src='{address}' alt='{caption}'>"
        f"<figcaption>{caption}</figcaption></figure>"
    )
