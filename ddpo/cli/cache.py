"""`ddpo cache`: the contents of the score cache, their export, and their removal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ddpo.cli.console import escape, one_line_warnings, simple_table
from ddpo.cli.options import AsJson

if TYPE_CHECKING:
    from rich.table import Table

    from ddpo.rewards.cache import CacheStats, ScoreCache

app = typer.Typer(
    help="Score cache: its contents, their export, and their removal.",
    no_args_is_help=True,
)


@app.command("stats")
def stats_command(as_json: AsJson = False) -> None:
    """Print the place, size and limit of the cache, and its scores by reward."""
    from ddpo.rewards.cache.servable import servable

    with _cache() as cache:
        stats = cache.stats()
    fresh = [servable(entry) for entry in stats.entries]
    if as_json:
        typer.echo(json.dumps(_as_json(stats, fresh), indent=2, ensure_ascii=False))
        return
    from rich.console import Console

    console = Console()
    for label, text in _facts(stats, fresh):
        console.print(f"[bold]{label:10}[/bold]{escape(text)}", soft_wrap=True)
    if stats.entries:
        console.print(_entries_table(stats, fresh))
    if None in fresh:
        console.print(
            "?: no reward of that name is installed; those of your files are known once used"
        )
    if stats.damaged:
        size = sum(path.stat().st_size for path in stats.damaged)
        console.print(
            f"damaged files set aside: {len(stats.damaged)} ({_size(size)}); "
            "`ddpo cache clear` removes them",
            soft_wrap=True,
        )


def _facts(stats: CacheStats, fresh: list[bool | None]) -> list[tuple[str, str]]:
    """Labels and values of the lines above the table."""
    served = sum(entry.scores for entry, state in zip(stats.entries, fresh, strict=True) if state)
    facts = [
        ("cache", str(stats.path)),
        ("size", f"{_size(stats.bytes)} of at most {_size(stats.limit_bytes)}"),
        ("scores", f"{stats.scores:,}, of which {served:,} of rewards as they are installed now"),
    ]
    ends = [(entry.oldest, entry.newest) for entry in stats.entries]
    moments = [moment for pair in ends for moment in pair if moment is not None]
    if moments:
        facts.append(("computed", f"from {_minute(min(moments))} to {_minute(max(moments))}"))
    return facts


def _entries_table(stats: CacheStats, fresh: list[bool | None]) -> Table:
    table = simple_table()
    table.add_column("reward", no_wrap=True, style="bold")
    table.add_column("scores", justify="right", no_wrap=True)
    table.add_column("installed", no_wrap=True)
    table.add_column("last used", no_wrap=True)
    table.add_column("version and options", overflow="fold")
    states = {True: "yes", False: "[yellow]other[/yellow]", None: "?"}
    for entry, state in zip(stats.entries, fresh, strict=True):
        table.add_row(
            escape(entry.reward),
            f"{entry.scores:,}",
            states[state],
            _minute(entry.most_recent),
            escape(_version_and_options(entry.identity)),
        )
    return table


def _version_and_options(identity: str) -> str:
    """The parts of an identity by which a reader tells the versions of a reward apart.

    The card's fingerprint among them stands for weights and preprocessing.
    """
    parts = [part.partition(":") for part in identity.split("|")]
    common = ("reward", "pixels", "preprocessing", "dtype", "weights")
    return " ".join(
        f"{name}:{value}" for name, _, value in parts if name not in common and value != "default"
    )


def _as_json(stats: CacheStats, fresh: list[bool | None]) -> dict[str, object]:
    entries = [
        {
            "reward": entry.reward,
            "identity": entry.identity,
            "scores": entry.scores,
            "installed_now": state,
            "oldest": _iso(entry.oldest),
            "newest": _iso(entry.newest),
            "least_recently_used": _iso(entry.least_recent),
            "most_recently_used": _iso(entry.most_recent),
        }
        for entry, state in zip(stats.entries, fresh, strict=True)
    ]
    facts: dict[str, object] = {
        "path": str(stats.path),
        "bytes": stats.bytes,
        "limit_bytes": stats.limit_bytes,
        "scores": stats.scores,
    }
    return facts | {"damaged": [str(path) for path in stats.damaged], "entries": entries}


@app.command("clear")
def clear_command(
    reward: Annotated[
        str | None,
        typer.Option(
            help="The only reward whose scores are removed, in all its versions and options."
        ),
    ] = None,
) -> None:
    """Remove the scores of one reward, or all scores and the damaged files set aside."""
    with _cache() as cache:
        removed = cache.clear(reward)
        after = cache.stats()
    whose = f" of {reward}" if reward is not None else ""
    typer.echo(
        f"removed {removed:,} scores{whose}; {after.scores:,} are left ({_size(after.bytes)})"
    )


@app.command("export")
def export_command(
    out: Annotated[
        Path,
        typer.Argument(help="Table to write or replace: .parquet, .csv or .jsonl."),
    ],
) -> None:
    """Write all scores as a table.

    Its columns are reward, identity, key, value, parts, and the times of computing and last use.
    """
    with _cache() as cache:
        written = cache.export(out)
    typer.echo(f"wrote {written:,} scores to {out}")


@contextmanager
def _cache() -> Iterator[ScoreCache]:
    """The open score cache, whose warnings are one line each."""
    from ddpo.rewards.cache import ScoreCache

    with one_line_warnings(), ScoreCache() as cache:
        yield cache


def _size(count: float) -> str:
    """A number of bytes in units of 2**20 or 2**10, as in DDPO_CACHE_LIMIT_MB."""
    return f"{count / 2**20:,.1f} MB" if count >= 2**20 else f"{count / 2**10:,.0f} kB"


def _minute(moment: datetime | None) -> str:
    return "unknown" if moment is None else moment.astimezone().strftime("%Y-%m-%d %H:%M")


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
