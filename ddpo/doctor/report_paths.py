"""The paths of the report of `ddpo doctor`, checked before torch is imported."""

from __future__ import annotations

from pathlib import Path

from ddpo.errors import ConfigError
from ddpo.io.atomic import check_writable

__all__ = ["report_paths"]


def report_paths(out: Path) -> tuple[Path, Path]:
    """The paths of the JSON and the Markdown file, from a name with either suffix or none.

    Raises:
        ConfigError: The suffix is another one, or the place cannot be written.
    """
    if out.suffix not in ("", ".json", ".md"):
        raise ConfigError(f"--out {out}: the report is a .json and a .md file; give either name")
    paths = out.with_suffix(".json"), out.with_suffix(".md")
    for path in paths:
        check_writable(path)
    return paths
