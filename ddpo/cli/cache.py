"""`ddpo cache`: what the score cache holds, as a table and as a file, and how to empty it. Nothing heavy is imported."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ddpo.cli.markup import escape
from ddpo.cli.warnings import one_line_warnings

if TYPE_CHECKING:
    from rich.table import Table

    from ddpo.rewards.cache import CacheStats, ScoreCache

app = typer.Typer(
    help="The score cache: scores that were computed before and are not computed again.",
    no_args_is_help=True,
)


@app.command("stats")
def stats_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Where the cache is, its size and limit, and the scores of each reward."""
    from ddpo.rewards.tools.servable import servable

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
            "?: no reward of that name is installed; a user's file or module is known when it is used"
        )
    if stats.damaged:
        size = sum(path.stat().st_size for path in stats.damaged)
        console.print(
            f"{len(stats.damaged)} damaged files were set aside ({_size(size)}); `ddpo cache clear` removes them",
            soft_wrap=True,
        )


def _facts(stats: CacheStats, fresh: list[bool | None]) -> list[tuple[str, str]]:
    served = sum(entry.scores for entry, state in zip(stats.entries, fresh, strict=True) if state)
    facts = [
        ("cache", str(stats.path)),
        ("size", f"{_size(stats.bytes)} of at most {_size(stats.limit_bytes)}"),
    ]
    facts.append(
        ("scores", f"{stats.scores:,}, of which {served:,} of rewards as they are installed now")
    )
    moments = [
        moment
        for entry in stats.entries
        for moment in (entry.oldest, entry.newest)
        if moment is not None
    ]
    if moments:
        facts.append(("computed", f"from {_minute(min(moments))} to {_minute(max(moments))}"))
    return facts


def _entries_table(stats: CacheStats, fresh: list[bool | None]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("reward", no_wrap=True, style="bold")
    table.add_column("scores", justify="right", no_wrap=True)
    table.add_column("installed", no_wrap=True)
    table.add_column("last used", no_wrap=True)
    table.add_column("version and options", overflow="fold")
    states = {True: "yes", False: "[yellow]other[/yellow]", None: "?"}
    for entry, state in zip(stats.entries, fresh, strict=True):
        told_apart = escape(_told_apart(entry.identity))
        table.add_row(
            escape(entry.reward),
            f"{entry.scores:,}",
            states[state],
            _minute(entry.most_recent),
            told_apart,
        )
    return table


def _told_apart(identity: str) -> str:
    """What of an identity a reader can tell versions apart by; the card's fingerprint stands for weights and preprocessing."""
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
        typer.Option(help="Only the scores of this reward, of all its versions and options."),
    ] = None,
) -> None:
    """Removes scores: all of them with the damaged files that were set aside, or those of one reward."""
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
        typer.Argument(help="A table to write: .parquet, .csv or .jsonl. Replaces an older one."),
    ],
) -> None:
    """Writes all scores as a table: reward, identity, key, value, parts, when computed, when last used."""
    with _cache() as cache:
        written = cache.export(out)
    typer.echo(f"wrote {written:,} scores to {out}")


@contextmanager
def _cache() -> Iterator[ScoreCache]:
    """The cache; what it warns of is said on one line."""
    from ddpo.rewards.cache import ScoreCache

    with one_line_warnings(), ScoreCache() as cache:
        yield cache


def _size(count: float) -> str:
    return f"{count / 2**20:,.1f} MB" if count >= 2**20 else f"{count / 2**10:,.0f} kB"


def _minute(moment: datetime | None) -> str:
    return "unknown" if moment is None else moment.astimezone().strftime("%Y-%m-%d %H:%M")


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
