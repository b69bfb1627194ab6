"""Measures how a code base reads: columns, statements, docstrings, words, imports, classes, frames.

    python tools/measure_house.py ../before=before .=after     a Markdown table, column by column
    python tools/measure_house.py --list dialect .             the places that break one rule
    python tools/measure_house.py --list dialect docs README.md

A path is a checkout, a package, a folder or a file; its title follows "=". `house_frames.py` counts
frames in a run of one iteration, with the Python that runs this script.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from house_imports import (
    LOOP,
    RUNNERS,
    circles,
    fan_out,
    import_graph,
    module_name,
    reward_classes,
    wide_imports,
)
from house_rules import RULES
from house_source import Place, Source, dialect_of_text, files_at, package_of, python_files

TEXTS = (".md", ".html", ".jinja", ".j2", ".template", ".css")
ROOMS = ("ddpo", "ddpo.rewards", "ddpo.eval")


class House:
    """The Python files of a package and their imports, read once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.root = package_of(path)
        self.sources: dict[str, Source] = {}
        for file in python_files(self.root):
            self.sources[module_name(file, self.root)] = Source(file)
        self.graph = import_graph(self.sources)
        self.lines = sum(len(source.lines) for source in self.sources.values())

    def places(self, rule: str) -> Iterator[Place]:
        """The places that break a rule of the lines or of the imports."""
        if rule in RULES:
            for source in self.sources.values():
                yield from RULES[rule](source)
        else:
            yield from HOUSE_RULES[rule](self)

    def count(self, rule: str) -> int:
        """The number of places that break a rule."""
        return sum(1 for _ in self.places(rule))


@cache
def house_at(path: Path) -> House:
    """The house at a path, read once per process."""
    return House(path)


def _circle_places(house: House) -> Iterator[Place]:
    for ring in circles(house.graph):
        yield house.sources[ring[0]].at(1, " ".join(ring))


HOUSE_RULES: dict[str, Callable[[House], Iterator[Place]]] = {
    "circle": _circle_places,
    "imports-over-20": lambda house: wide_imports(house.sources, house.graph, 20),
    "reward-class": lambda house: iter(reward_classes(house.sources, house.graph)),
    "frame": lambda house: iter(frames(house.path)),
}


def frames(checkout: Path) -> list[Place]:
    """Our frames between the rollout and the user's function, outermost first; none if it fails."""
    script = Path(__file__).with_name("house_frames.py")
    command = [sys.executable, str(script), str(checkout)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{checkout}: no frames: {done.stderr.strip()[-200:]}", file=sys.stderr)
        return []
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    return [Place(checkout / file, int(number), name) for file, number, name in lines]


def share(part: int, whole: int) -> str:
    """A part of a whole in percent, with one decimal."""
    return f"{100 * part / whole:.1f} %" if whole else "–"


def mean_length(house: House) -> float:
    """Mean characters of a line that is not blank."""
    lengths = [len(line) for s in house.sources.values() for line in s.lines if line.strip()]
    return sum(lengths) / max(1, len(lengths))


def style_rows(house: House) -> dict[str, str]:
    """The rows that every code base has."""
    tuples = house.count("tuple-assignment")
    long = house.count("function-over-40")
    longest = house.count("function-over-80")
    riddles = house.count("docstring-opening")
    rings = circles(house.graph)
    return {
        "files, lines": f"{len(house.sources):,}, {house.lines:,}",
        "lines over 100 columns": share(house.count("over-100"), house.lines),
        "lines over 120 columns": share(house.count("over-120"), house.lines),
        "mean length of a line, characters": f"{mean_length(house):.1f}",
        "tuple assignments, per 1,000 lines": f"{tuples} ({1000 * tuples / house.lines:.1f})",
        "nested conditional expressions": str(house.count("nested-conditional")),
        "`# fmt: skip`": str(house.count("fmt-skip")),
        "functions over 40, over 80 lines": f"{long}, {longest}",
        "functions of complexity over 12": str(house.count("complexity")),
        "files over 400 lines": str(house.count("file-over-400")),
        "docstrings that open with What, How, Of, Whether, Which, That": str(riddles),
        "first docstring lines over 100 characters": str(house.count("docstring-length")),
        "dialect words in docstrings, comments, strings": str(house.count("dialect")),
        "modules that import more than 20 others": str(house.count("imports-over-20")),
        "import circles (modules in them)": f"{len(rings)} ({sum(map(len, rings))})",
    }


def project_rows(house: House, with_frames: bool) -> dict[str, str]:
    """The rows about rooms and rewards, which only this project has."""
    if LOOP not in house.sources:
        return {}
    rows = {}
    for room in ROOMS[1:]:
        rings = circles(house.graph, room)
        rows[f"import circles within {room}"] = f"{len(rings)} ({sum(map(len, rings))})"
    rows["imports of the training loop"] = str(fan_out(house.graph, LOOP))
    rows["imports of the evaluation's runner"] = str(fan_out(house.graph, *RUNNERS))
    rows["classes for a reward in some state"] = str(house.count("reward-class"))
    if with_frames:
        counted = house.count("frame")
        rows["frames from rollout to user's function"] = str(counted) if counted else "–"
    return rows


def table(columns: dict[str, dict[str, str]]) -> str:
    """A Markdown table from title → row → value; "–" where a column lacks a row."""
    names = dict.fromkeys(name for rows in columns.values() for name in rows)
    lines = ["| |" + "".join(f" {title} |" for title in columns)]
    lines.append("|---|" + "---:|" * len(columns))
    for name in names:
        values = [rows.get(name, "–") for rows in columns.values()]
        lines.append(f"| {name} |" + "".join(f" {value} |" for value in values))
    return "\n".join(lines)


def listed(rule: str, path: Path) -> Iterator[Place]:
    """The places of a rule at or below a path; for the dialect, texts too."""
    house = house_at(path)
    yield from house.places(rule)
    if rule == "dialect":
        for file in files_at(house.root):
            if file.suffix in TEXTS:
                yield from dialect_of_text(file)


def main() -> int:
    """Prints the table, or the places of one rule."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("paths", nargs="+", metavar="PATH[=LABEL]")
    parser.add_argument("--list", dest="rule", choices=[*RULES, *HOUSE_RULES])
    parser.add_argument("--no-frames", action="store_true", help="skip the run that counts frames")
    args = parser.parse_args()
    columns = {}
    for text in args.paths:
        path, _, label = text.partition("=")
        if not Path(path).exists():
            parser.error(f"{path}: no such file or folder")
        if args.rule:
            for place in listed(args.rule, Path(path)):
                print(place)
        else:
            house = House(Path(path))
            rows = style_rows(house) | project_rows(house, not args.no_frames)
            columns[label or house.root.name] = rows
    if columns:
        print(table(columns))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
