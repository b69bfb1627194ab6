"""The fields of a run's `manifest.json` and `metrics.jsonl` that later commands need."""

from __future__ import annotations

from typing import Final

from ddpo.io.fields import COUNT, SHORT, Fields, ListOf, MapOf, Maybe

__all__ = ["MANIFEST", "METRICS"]

MANIFEST: Final[Fields] = {
    "versions": MapOf(SHORT),
    "config": Maybe(dict),
    "folder": Maybe(SHORT),
    "base": Maybe({"place": Maybe(SHORT), "fingerprint": Maybe(SHORT)}),
    "reward": {
        "card": {
            "id": SHORT,
            "summary": str,
            "flaws": str,
            "unit": str,
            "options": ListOf({"name": SHORT, "default": object}),
        },
        "signature": str,
        "origin": Maybe(str),
        "files": Maybe(ListOf(MapOf(SHORT, fewest=1))),
    },
    "prompts": {"source": SHORT, "sha256": Maybe(SHORT), "list": ListOf(str, shortest=1)},
    "origins": Maybe(MapOf(str)),
    "resumed": Maybe(ListOf(dict)),
}
METRICS: Final[Fields] = {
    "iteration": COUNT,
    "reward_queries": COUNT,
    "reward_mean": float,
    "reward_se": Maybe(float),
    "held_out": Maybe(float),
}
