"""One run as the page shows it: a row of the overview, or everything about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from threading import Lock
from typing import Any, Final

from ddpo.errors import UserError, one_line
from ddpo.policies.checkpoints.folder import BEST_FIELDS
from ddpo.text import shortened, without_secrets
from ddpo.trainer.monitoring.grid_shape import PROMPTS
from ddpo.trainer.run.divergence import DIVERGENCE_FILE
from ddpo.trainer.run.stopping import STOP_FILE
from ddpo.view.evaluations import Evaluations
from ddpo.view.findings import findings_of
from ddpo.view.grids import columns_of
from ddpo.view.metrics_tail import MetricsTail
from ddpo.view.run_files import Stamp, file_inside, numbered, read_inside, stamp_of
from ddpo.view.run_index import RunPlace
from ddpo.view.run_state import state_of

__all__ = ["ViewedRun"]

ROW_POINTS: Final = 60  # of the small curve in the overview
PAGE_POINTS: Final = 800  # of each curve of a run's page
MOST_SETTINGS: Final = 300
MOST_TEXT: Final = 300  # characters of a setting or prompt


class ViewedRun:
    """Reads one run folder again and again; files that did not change are read once.

    Args:
        place: the run folder.
    """

    def __init__(self, place: RunPlace) -> None:
        self.place = place
        self._path = place.path
        self._tail = MetricsTail(place.path)
        self._evaluations = Evaluations(place.path)
        self._read: dict[str, tuple[Stamp | None, Mapping[str, Any], str]] = {}
        self._turn = Lock()

    def row(self) -> dict[str, Any]:
        """The run's row in the overview."""
        with self._turn:
            return self._row(ROW_POINTS)

    def page(self) -> dict[str, Any]:
        """Everything about the run."""
        with self._turn:
            config = self._object("config.json")
            manifest = self._object("manifest.json")
            divergence = self._reason(DIVERGENCE_FILE)
            stop = self._reason(STOP_FILE)
            found = self._row(PAGE_POINTS)
            found["curves"] = {
                name: curve.points(PAGE_POINTS) for name, curve in self._tail.curves.items()
            }
            found["findings"] = findings_of(config, manifest, divergence, stop, self._tail)
            found["settings"] = _settings(config)
            found["prompts"] = self.prompts()
            found["grids"] = list(self.grids())
            found["checkpoints"] = self._checkpoints()
            found["evaluations"] = [asdict(one) for one in self._evaluations.all()]
            return found

    def prompts(self) -> list[str]:
        """The prompts of the image grids."""
        listed = self._object("manifest.json").get("prompts")
        texts = listed.get("list") if isinstance(listed, Mapping) else None
        if not isinstance(texts, list):
            return []
        return [shortened(str(text), MOST_TEXT) for text in texts[:PROMPTS]]

    def columns(self) -> int:
        """The number of columns of the image grids."""
        return columns_of(self.prompts())

    def grids(self) -> dict[int, str]:
        """Iteration → file name of each image grid."""
        found = numbered(self._path, "samples")
        return {iteration: name for iteration, name in found.items() if name.endswith(".png")}

    def _row(self, points: int) -> dict[str, Any]:
        config = self._object("config.json")
        self._tail.read_on()
        curves = self._tail.curves
        grids = self.grids()
        evaluations = self._evaluations.all()
        held_out = curves["held_out"].last
        reward = curves["reward_mean"].last
        planned = config.get("iterations")
        return {
            "key": self.place.key,
            "name": self.place.name,
            "reward": _word(config.get("reward")),
            "held_out_name": _word(config.get("held_out")),
            "model": _word(config.get("model")),
            "algorithm": _word(config.get("algorithm")),
            "done": self._tail.done,
            "planned": planned if isinstance(planned, int) else None,
            "state": state_of(self._path, config, self._tail),
            "fault": self._read["config.json"][2],
            "up_to_date": self._tail.up_to_date,
            "last": reward[1] if reward else None,
            "held_out": held_out[1] if held_out else None,
            "grade": evaluations[-1].grade if evaluations else "",
            "grid": max(grids, default=None),
            "curve": curves["reward_mean"].points(points),
        }

    def _checkpoints(self) -> list[dict[str, Any]]:
        best = self._object("checkpoints/best.json").get("folder")
        return [
            {"iteration": iteration, "best": name == best}
            for iteration, name in numbered(self._path, "checkpoints").items()
            if not name.endswith(".png")
        ]

    def _reason(self, name: str) -> str:
        """The reason in a note about the end of the run; "" without one."""
        return shortened(str(self._object(name).get("reason") or ""), MOST_TEXT)

    def _object(self, name: str) -> Mapping[str, Any]:
        """The object in a JSON file of the run; {} if it is absent or damaged."""
        parts = name.split("/")
        stamp = stamp_of(file_inside(self._path, *parts))
        known = self._read.get(name)
        if known is None or known[0] != stamp or stamp is None:
            fields = BEST_FIELDS if name.endswith("best.json") else None
            try:
                known = (stamp, read_inside(self._path, *parts, fields=fields), "")
            except (UserError, OSError) as error:
                known = (stamp, {}, shortened(one_line(error), MOST_TEXT))
            self._read[name] = known
        return known[1]


def _word(value: object) -> str:
    return shortened(without_secrets(str(value)), MOST_TEXT) if value not in (None, "") else ""


def _settings(config: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Name, value and origin of each setting; names of nested ones have dots."""
    origins = config.get("sources")
    origins = origins if isinstance(origins, Mapping) else {}
    rows: list[tuple[str, str, str]] = []
    for name, value in config.items():
        if name == "sources":
            continue
        nested = value if isinstance(value, Mapping) else {"": value}
        for inner, item in nested.items():
            full = f"{name}.{inner}" if inner else name
            rows.append((shortened(full, 80), _shown(item), _word(origins.get(full))))
    return rows[:MOST_SETTINGS]


def _shown(value: object) -> str:
    if isinstance(value, list):
        return shortened(", ".join(_word(item) for item in value[:50]), MOST_TEXT)
    return _word(value) if not isinstance(value, bool) else str(value).lower()
