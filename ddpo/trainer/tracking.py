"""A run in TensorBoard or Weights & Biases, through the trackers of Hugging Face accelerate."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from ddpo.errors import MissingResourceError, UserError
from ddpo.trainer.events import Event, GridSaved, IterationDone, Metrics, Started

__all__ = ["TRACKERS", "RunTracker", "check_tracker", "open_tracker", "scalars"]

TRACKERS: Final = ("tensorboard", "wandb")
PROJECT: Final = "ddpo"  # in Weights & Biases
MODULES: Final[Mapping[str, tuple[str, ...]]] = {"tensorboard": ("tensorboard", "tensorboardX"), "wandb": ("wandb",)}


def check_tracker(name: str) -> None:
    """Makes sure that the package of a tracker is there.

    Raises:
        MissingResourceError: it is not; says how to install it.
    """
    if not any(find_spec(module) for module in MODULES[name]):
        raise MissingResourceError(f"--track {name} needs the package {name}, which is not installed: pip install {name}")


def open_tracker(name: str, folder: Path, done: int) -> Any:
    """A started tracker of accelerate for the run in `folder`; that which the run had before, if it is resumed.

    Args:
        name: one of `TRACKERS`.
        folder: the run folder, with its manifest.
        done: iterations that are kept; what TensorBoard has of later ones is hidden.

    Raises:
        UserError: the service refuses, such as for want of a key.
    """
    from accelerate.tracking import TensorBoardTracker, WandBTracker

    tracker: Any
    if name == "tensorboard":
        tracker = TensorBoardTracker(".", folder / "tensorboard", purge_step=done + 1 if done else None)
    else:
        begun = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["started"]
        identity = hashlib.sha256(f"{folder.name}/{begun}".encode()).hexdigest()[:16]
        tracker = WandBTracker(PROJECT, id=identity, name=folder.name, dir=str(folder), resume="allow")
    try:
        tracker.start()
    except Exception as error:
        raise UserError(f"{name} cannot be used: {error}") from error
    return tracker


class RunTracker:
    """Passes the events of a run on to a tracker: settings once, scalars of each iteration, the grids of pictures.

    Args:
        tracker: a started `accelerate.tracking.GeneralTracker`.
        settings: nested plain values, such as `config.json` holds.
    """

    def __init__(self, tracker: Any, settings: Mapping[str, Any]) -> None:
        self.tracker, self.settings, self.iteration = tracker, settings, 0

    def show(self, event: Event) -> None:
        """Takes one event."""
        if isinstance(event, Started):
            self.iteration = event.iteration
            if event.iteration == 0:
                self.tracker.store_init_configuration(_flat(self.settings))
        elif isinstance(event, IterationDone):
            self.iteration = event.metrics.iteration
            self.tracker.log({**scalars(event.metrics), "memory_bytes": event.memory}, step=self.iteration)
        elif isinstance(event, GridSaved) and hasattr(self.tracker, "log_images"):
            self._log_grid(event.path)

    def _log_grid(self, path: Path) -> None:
        import numpy as np

        from ddpo.images import load_image

        pictures = np.asarray(load_image(path))[None]
        layout = {"dataformats": "NHWC"} if self.tracker.name == "tensorboard" else {}
        self.tracker.log_images({"samples": pictures}, step=self.iteration, **layout)

    def close(self) -> None:
        """Sends what is left."""
        self.tracker.finish()


def scalars(metrics: Metrics) -> dict[str, float]:
    """The numbers of an iteration under flat names: `reward_parts/…`, `ratio_deviation/step_03`; those that are None are left out."""
    values = asdict(metrics)
    steps, parts = values.pop("by_step"), values.pop("reward_parts")
    values |= {f"reward_parts/{name}": value for name, value in parts.items()}
    for step in steps:
        for name in ("ratio_deviation", "clip_fraction"):
            values[f"{name}/step_{step['step']:02d}"] = step[name]
    return {name: value for name, value in values.items() if isinstance(value, int | float) and name != "iteration"}


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"optim": {"lr": 1}}` as `{"optim.lr": 1}`."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return found
