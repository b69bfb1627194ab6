"""`ddpo cache`: the contents of the score cache, their export, and their removal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from ddpo.cli.commands import Commands, Group, examples
from ddpo.cli.completion import complete_reward
from ddpo.cli.console import (
    echo,
    escape,
    new_console,
    note,
    one_line_warnings,
    print_json,
    simple_table,
)
from ddpo.cli.options import INPUT, AsJson, option, out_option
from ddpo.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

    from ddpo.rewards.cache import CacheEntry, CacheStats, ScoreCache

app = Commands(
    cls=Group, help="The score cache, which keeps scores between commands.", no_args_is_help=True
)

INSTALLED = {True: "yes", False: "[yellow]other[/yellow]", None: "?"}
UNKNOWN = "?: no reward of that name is installed; your own files are compared when they are used"
HIDDEN = ("reward", "pixels", "preprocessing", "dtype", "weights")  # the fingerprint covers them

Found = list[tuple["CacheEntry", bool | None]]
"""Entries, each with the answer of `servable`."""


@app.command("stats")
@examples("ddpo cache stats", "ddpo cache stats --json")
def stats_command(as_json: AsJson = False) -> None:
    """Print the cache's place, size and limit, and the scores of each reward."""
    from ddpo.rewards.tools.servable import servable

    with _cache() as cache:
        stats = cache.stats()
    found = [(entry, servable(entry)) for entry in stats.entries]
    if as_json:
        print_json(_as_json(stats, found))
        return

    console = new_console()
    for label, text in _facts(stats, found):
        console.print(f"[bold]{label:10}[/bold]{escape(text)}", soft_wrap=True)
    if found:
        console.print(_entries_table(found))
    if any(installed is None for _, installed in found):
        console.print(UNKNOWN)
    if stats.damaged:
        size = _size(sum(path.stat().st_size for path in stats.damaged))
        text = f"damaged files set aside: {len(stats.damaged)} ({size})"
        console.print(f"{text}; `ddpo cache clear` removes them", soft_wrap=True)


def _facts(stats: CacheStats, found: Found) -> Iterator[tuple[str, str]]:
    served = sum(entry.scores for entry, installed in found if installed)
    yield "cache", str(stats.path)
    yield "size", f"{_size(stats.bytes)} of at most {_size(stats.limit_bytes)}"
    yield "scores", f"{stats.scores:,}, of which {served:,} match the installed rewards"
    moments = [time for entry, _ in found for time in (entry.oldest, entry.newest) if time]
    if moments:
        yield "computed", f"from {_minute(min(moments))} to {_minute(max(moments))}"


def _entries_table(found: Found) -> Table:
    table = simple_table()
    table.add_column("reward", no_wrap=True, style="bold")
    table.add_column("scores", justify="right", no_wrap=True)
    table.add_column("installed", no_wrap=True)
    table.add_column("last used", no_wrap=True)
    table.add_column("version and options", overflow="fold")
    for entry, installed in found:
        used = _minute(entry.most_recent)
        version = escape(_version_and_options(entry.identity))
        name = escape(entry.reward)
        table.add_row(name, f"{entry.scores:,}", INSTALLED[installed], used, version)
    return table


def _version_and_options(identity: str) -> str:
    """The parts of an identity by which a reader can distinguish versions."""
    parts = [part.partition(":") for part in identity.split("|")]
    kept = [part for part in parts if part[0] not in HIDDEN and part[2] != "default"]
    return " ".join(f"{name}:{value}" for name, _, value in kept)


def _as_json(stats: CacheStats, found: Found) -> dict[str, object]:
    entries = [
        {
            "reward": entry.reward,
            "identity": entry.identity,
            "scores": entry.scores,
            "installed_now": installed,
            "oldest": _iso(entry.oldest),
            "newest": _iso(entry.newest),
            "least_recently_used": _iso(entry.least_recent),
            "most_recently_used": _iso(entry.most_recent),
        }
        for entry, installed in found
    ]
    return {
        "path": str(stats.path),
        "bytes": stats.bytes,
        "limit_bytes": stats.limit_bytes,
        "scores": stats.scores,
        "damaged": [str(path) for path in stats.damaged],
        "entries": entries,
    }


@app.command("clear")
@examples("ddpo cache clear --reward aesthetic", "ddpo cache clear")
def clear_command(
    reward: Annotated[
        str | None,
        option(
            "The only reward whose scores are removed, in all its versions and options.",
            metavar="REWARD",
            panel=INPUT,
            complete=complete_reward,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Remove the scores of one reward, or all of them with the damaged files set aside."""
    with _cache() as cache:
        removed = cache.clear(reward)
        after = cache.stats()
    if as_json:
        print_json({"removed": removed, "scores": after.scores, "bytes": after.bytes})
        return
    whose = f" of {reward}" if reward is not None else ""
    left = f"{after.scores:,} are left ({_size(after.bytes)})"
    echo(f"removed {removed:,} scores{whose}; {left}")


@app.command("export")
@examples("ddpo cache export --out scores.parquet")
def export_command(
    old_out: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="The same as --out.", hidden=True)
    ] = None,
    out: Annotated[
        Path | None, out_option("Table to write or replace: .parquet, .csv or .jsonl.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write all scores as a table: reward, identity, key, value, parts, time, last use."""
    from ddpo.io.lock import owned_file
    from ddpo.io.tables import check_table_path

    out = _only_one(out, old_out)
    check_table_path(out)
    with _cache() as cache, owned_file(out, "ddpo cache export", "name"):
        written = cache.export(out)
    if as_json:
        print_json({"out": str(out), "scores": written})
        return
    echo(f"wrote {written:,} scores to {out}")


def _only_one(out: Path | None, old: Path | None) -> Path:
    """The file to write; that of the argument, as of earlier versions, with a note.

    Raises:
        ConfigError: Both are given, or neither.
    """
    if (out is None) == (old is None):
        raise ConfigError("give the table to write as --out FILE")
    if out is not None:
        return out
    note(f"the table is now given as --out {old}")
    return cast(Path, old)


@contextmanager
def _cache() -> Iterator[ScoreCache]:
    """The cache, with its warnings on one line each."""
    from ddpo.rewards.cache import ScoreCache

    with one_line_warnings(), ScoreCache() as cache:
        yield cache


def _size(count: float) -> str:
    return f"{count / 2**20:,.1f} MB" if count >= 2**20 else f"{count / 2**10:,.0f} kB"


def _minute(moment: datetime | None) -> str:
    return "unknown" if moment is None else moment.astimezone().strftime("%Y-%m-%d %H:%M")


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
