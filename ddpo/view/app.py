"""The server of `ddpo view`: run folders as JSON and thumbnails for the page in `static`.

/api/runs                           rows of the overview
/api/run/KEY                        everything about a run
/image/KEY/ITERATION/CELL?side=128  one image of a grid; CELL "preview" for several
/evaluation/KEY/NAME/FILE           the files of a report, under the report's own policy
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, Response

from ddpo.errors import ConfigError
from ddpo.view.evaluations import REPORT_FILES
from ddpo.view.grids import Thumbnails
from ddpo.view.run_files import file_inside
from ddpo.view.run_index import RunIndex
from ddpo.view.viewed_run import ViewedRun
from ddpo.web.frame import new_app

__all__ = ["make_app"]

STATIC: Final = Path(__file__).parent / "static"
OVERVIEW_SECONDS: Final = 1.0
"""Time of one answer for reading runs; the next answer has the others."""
REPORT_POLICY: Final = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The policy of a report, as in its own page: it can only show itself."""
FOR_LONG: Final = "private, max-age=86400, immutable"
DIGITS: Final = 6  # of a number


class Viewer:
    """The runs that were looked at, by key.

    Args:
        index: finds the runs.
    """

    def __init__(self, index: RunIndex) -> None:
        self._index = index
        self._runs: dict[str, ViewedRun] = {}
        self._rows: dict[str, dict[str, Any]] = {}
        self._next = 0  # place of the run that the next overview reads first
        self._thumbnails = Thumbnails()
        self._turn = Lock()

    def overview(self) -> dict[str, Any]:
        """A row for each run; those that could not be read in time are as they were last."""
        with self._turn:
            return self._overview()

    def _overview(self) -> dict[str, Any]:
        places = self._index.runs()
        keys = [place.key for place in places]
        wanted = set(keys)
        self._runs = {key: run for key, run in list(self._runs.items()) if key in wanted}
        until = time.monotonic() + OVERVIEW_SECONDS
        rows = {}
        read = 0
        start = self._next % len(places) if places else 0
        for place in places[start:] + places[:start]:
            if time.monotonic() < until or read == 0:
                run = self._runs.setdefault(place.key, ViewedRun(place))
                rows[place.key] = run.row()
                read += 1
        self._next = start + read
        before = self._rows
        self._rows = {key: rows.get(key) or before.get(key) or {} for key in keys}
        shown = [row for row in self._rows.values() if row]
        complete = len(shown) == len(places) and all(row["up_to_date"] for row in shown)
        return {
            "folders": self._index.names,
            "runs": shown,
            "found": len(places),
            "complete": complete,
        }

    def run(self, key: str) -> ViewedRun:
        """The run of a key.

        Raises:
            UnknownNameError: there is none.
        """
        found = self._runs.get(key)
        if found is None or not found.place.path.is_dir():
            found = ViewedRun(self._index.find(key))
            self._runs[key] = found
        return found

    def image(self, key: str, iteration: int, cell: str, side: int) -> bytes:
        """One image of a grid, or the preview of the grid.

        Raises:
            UserError: there is none, or it is damaged.
        """
        run = self.run(key)
        name = run.grids().get(iteration)
        if name is None:
            raise ConfigError(f"the run has no image grid of iteration {iteration}")
        if cell == "preview":
            return self._thumbnails.preview(run.place.path, name, run.columns())
        if not (cell.isascii() and cell.isdecimal() and len(cell) < 6):
            raise ConfigError("an image has a number")
        return self._thumbnails.cell(run.place.path, name, run.columns(), int(cell), side)


def make_app(index: RunIndex, token: str) -> FastAPI:
    """The application.

    Args:
        index: finds the runs.
        token: secret of the address.
    """
    app = new_app("ddpo view", STATIC, token)
    viewer = Viewer(index)

    def runs(request: Request) -> Response:
        return _json(request, viewer.overview())

    def run(request: Request, key: str) -> Response:
        return _json(request, viewer.run(key).page())

    def image(key: str, iteration: int, cell: str, side: int = 128) -> Response:
        data = viewer.image(key, iteration, cell, side)
        return Response(data, media_type="image/png", headers={"Cache-Control": FOR_LONG})

    def evaluation(key: str, name: str, file: str) -> Response:
        path = file_inside(viewer.run(key).place.path, "eval", name, file)
        if path is None or file not in REPORT_FILES:
            raise ConfigError("there is no such file of an evaluation")
        headers = {"Content-Security-Policy": REPORT_POLICY}
        return FileResponse(path, media_type=REPORT_FILES[file], headers=headers)

    app.add_api_route("/api/runs", runs, methods=["GET"])
    app.add_api_route("/api/run/{key}", run, methods=["GET"])
    app.add_api_route("/image/{key}/{iteration}/{cell}", image, methods=["GET"])
    app.add_api_route("/evaluation/{key}/{name}/{file}", evaluation, methods=["GET"])
    return app


def _json(request: Request, value: Mapping[str, Any]) -> Response:
    """The value as JSON, or an empty answer if the page has it already."""
    data = json.dumps(_plain(value), separators=(",", ":"), ensure_ascii=False).encode()
    tag = f'"{hashlib.sha256(data).hexdigest()[:20]}"'
    headers = {"ETag": tag}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(data, media_type="application/json", headers=headers)


def _plain(value: Any) -> Any:
    """JSON values with six digits, and null for numbers that do not exist."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
