"""`ddpo rewards score`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ddpo.cli.markup import escape
from ddpo.errors import ConfigError

if TYPE_CHECKING:
    from ddpo.rewards.scored_files import ScoreRow
    from ddpo.rewards.zoo import ResolvedReward


def score_command(
    name: Annotated[str, typer.Argument(help="A reward of `ddpo rewards list`, ./file.py:Object or package.module:Object.")],
    images: Annotated[list[Path], typer.Argument(help="Pictures, and folders of pictures.")],
    prompts: Annotated[Path | None, typer.Option(help=".txt with one line per picture, or .jsonl with 'file' and 'prompt'.")] = None,
    prompt: Annotated[str | None, typer.Option(help="The one prompt of all pictures.")] = None,
    out: Annotated[Path | None, typer.Option(help="A table to write: .parquet, .csv or .jsonl. Replaces an older one.")] = None,
    batch_size: Annotated[int, typer.Option(help="Pictures per call of the reward.")] = 16,
) -> None:
    """Scores pictures; prints a summary and the signature, and writes one line per picture."""
    from rich.console import Console

    from ddpo.rewards.zoo import resolve

    found = resolve(name)
    if prompts is not None and prompt is not None:
        raise ConfigError("give --prompts or --prompt, not both")
    from ddpo.images import find_images
    from ddpo.rewards.score_table import check_table_path, read_image_prompts, write_table
    from ddpo.types import Prompt

    if out is not None:
        check_table_path(out)
    paths = find_images(images)
    texts = read_image_prompts(prompts, paths) if prompts is not None else [Prompt(prompt)] * len(paths) if prompt is not None else None
    rows = _score(found, paths, texts, batch_size)
    console = Console()
    if out is not None:
        write_table(rows, out, found.signature)
    _print_scores(console, rows, found, out)


def _score(found: ResolvedReward, paths: list[Path], prompts: Any, batch_size: int) -> list[ScoreRow]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from ddpo.rewards.scored_files import score_files

    reward = found.make()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(found.card.id, total=len(paths))
        return score_files(reward, paths, prompts, batch_size, lambda done: progress.advance(task, done))


def _print_scores(console: Any, rows: list[ScoreRow], found: ResolvedReward, out: Path | None) -> None:
    from rich import box
    from rich.table import Table

    from ddpo.rewards.scored_files import summarize

    if out is None:
        for row in rows:
            score = "–" if row.score is None else f"{row.score:.4f}"
            console.print(f"{score:>10}  {escape(row.file)}", soft_wrap=True)
    for row in [row for row in rows if row.error is not None][:10]:
        console.print(f"[yellow]unscorable[/yellow]  {escape(str(row.error))}", soft_wrap=True)
    summary = summarize(rows)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("scored", "unscorable", "mean", "sd", "p5", "p50", "p95"):
        table.add_column(column, justify="right", no_wrap=True)
    figures = (f"{value:.5g}" for value in (summary.mean, summary.sd, summary.p5, summary.p50, summary.p95))
    table.add_row(str(summary.scored), str(summary.unscorable), *figures)
    console.print(table)
    console.print(escape(found.signature), soft_wrap=True)
    if out is not None:
        console.print(f"wrote {escape(str(out))}", soft_wrap=True)
