"""`ddpo rewards score`."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ddpo.cli.device import AUTO, Device
from ddpo.cli.markup import escape
from ddpo.cli.progress import image_progress
from ddpo.cli.rewards.arguments import check_output, named_rewards, split_arguments
from ddpo.cli.rewards.left_out import print_left_out
from ddpo.cli.rewards.scorers import TIMEOUT, Cache, open_scorers
from ddpo.errors import ConfigError, RewardFailure
from ddpo.io.atomic import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rich.console import Console

    from ddpo.inputs.collection import ImageSource
    from ddpo.rewards.image_files import RunningSummary, ScoreRow
    from ddpo.rewards.scoring.resolve import ResolvedReward
    from ddpo.rewards.scoring.scorer import Scorer

ERRORS_SHOWN = 10
EXTREMES_SHOWN = 3


def score_command(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="REWARD... IMAGES...",
            help="Rewards, then images, folders, tables and archives.",
        ),
    ],
    prompts: Annotated[
        Path | None,
        typer.Option(help=".txt with one line per image, or a table with files and prompts."),
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="The one prompt of all pictures.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="A table to write: .parquet, .csv or .jsonl. Replaces an older one."),
    ] = None,
    contact_sheet: Annotated[
        Path | None, typer.Option(help="A PNG of the best and the worst pictures to write.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Pictures per call of a reward, at most.")] = 16,
    timeout: Annotated[
        float, typer.Option(help="Seconds after which a call of a reward is given up.")
    ] = TIMEOUT,
    device: Device = AUTO,
    cache: Cache = None,
) -> None:
    """Scores pictures with one reward or several; prints a summary and the signatures, and writes one line per picture and reward.

    Rewards that judge pictures together, such as vendi, take those of equal prompt for a group.
    A stopped scoring with --out resumes when the command is repeated; with such a reward it starts again.
    Prompts also come from metadata.jsonl, from cat.txt beside cat.png, or from the image itself:
    docs/input-formats.md has every format.
    """
    specs, places = split_arguments(arguments)
    if timeout <= 0:
        raise ConfigError(f"--timeout must be above 0, got {timeout:g}")
    from rich.console import Console

    from ddpo.inputs.collection import image_source
    from ddpo.rewards.image_files import RunningSummary, check_table_path, write_table

    found = named_rewards(specs)
    if not found or not places:
        raise ConfigError(
            "say which reward and which pictures, as in: ddpo rewards score compressibility my_folder"
        )
    if out is not None:
        check_table_path(out)
    if contact_sheet is not None:
        check_output(contact_sheet, ".png")
    pictures = image_source(places, prompts, prompt)
    _check_prompts(found.values(), pictures)
    console, tallies = Console(), {name: RunningSummary() for name in found}
    with ExitStack() as stack:
        scorers = list(
            stack.enter_context(
                open_scorers(found, batch_size, cache=cache, timeout=timeout, device=device)
            ).values()
        )
        rows, journal = _rows(stack, scorers, found, pictures, batch_size, out)
        advance = stack.enter_context(image_progress(", ".join(tallies), len(pictures)))
        for of_picture in rows:
            advance(1)
            for row in of_picture:
                tallies[row.reward].add(row)
            if out is None:
                _print_picture(console, of_picture)
            _print_errors(console, of_picture, tallies)
        if journal is not None and out is not None:
            write_table(
                journal.rows, out, {name: reward.signature for name, reward in found.items()}
            )
            journal.remove()
        served = {scorer.name: scorer.served for scorer in scorers}
    _print_summary(console, found, tallies, served)
    print_left_out(console, pictures)
    if contact_sheet is not None:
        _save_sheet(tallies, pictures, contact_sheet)
    for path in (out, contact_sheet):
        if path is not None:
            console.print(f"wrote {escape(str(path))}", soft_wrap=True)
    failed = sum(tally.summary().failed for tally in tallies.values())
    if failed:
        plural = "s" * (failed > 1)
        raise RewardFailure(
            f"{failed} score{plural} could not be computed because a reward failed; the others stand"
        )


def _check_prompts(found: Iterable[ResolvedReward], pictures: ImageSource) -> None:
    needing = [reward.card.id for reward in found if reward.card.needs_prompt]
    first = next(iter(pictures)) if needing else None
    if first is not None and first.prompt is None and first.no_prompt is None:
        raise ConfigError(
            f"reward {needing[0]!r} judges a picture by its prompt: give --prompts FILE or --prompt TEXT, or put cat.txt beside cat.png"
        )


def _rows(
    stack: ExitStack,
    scorers: Sequence[Scorer],
    found: dict[str, ResolvedReward],
    pictures: ImageSource,
    batch_size: int,
    out: Path | None,
) -> tuple[Iterator[tuple[ScoreRow, ...]], Any]:
    """The rows of all pictures, those of an earlier, stopped run first; and the journal that they are kept in, if there is a table."""
    from ddpo.rewards.image_files import TableJournal, journal_path, score_files, score_groups

    grouped = any("group" in reward.card.inputs for reward in found.values())
    score = score_groups if grouped else score_files
    if out is None:
        return score(scorers, pictures, batch_size), None
    journal = stack.enter_context(
        TableJournal(journal_path(out), [reward.identity for reward in found.values()])
    )

    def rows() -> Iterator[tuple[ScoreRow, ...]]:
        done, left = journal.resume([] if grouped else pictures)  # half a group is of no use
        yield from done
        for of_picture in score(
            scorers, journal.watched(pictures) if grouped else left, batch_size
        ):
            journal.append(of_picture)
            yield of_picture

    return rows(), journal


def _print_picture(console: Console, rows: Sequence[ScoreRow]) -> None:
    scores = "  ".join(
        f"{'–' if row.score is None else format(row.score, '.4f'):>10}" for row in rows
    )
    console.print(f"{scores}  {escape(printable(rows[0].file))}", soft_wrap=True, highlight=False)


def _print_errors(
    console: Console, rows: Sequence[ScoreRow], tallies: dict[str, RunningSummary]
) -> None:
    """One line for each reason; of a file that cannot be read, one for all rewards."""
    shown = sum(tally.without_score for tally in tallies.values())
    for error in dict.fromkeys(row.error for row in rows if row.error is not None):
        status = next(row.status for row in rows if row.error == error)
        if shown <= ERRORS_SHOWN * len(tallies):
            color = "yellow" if status == "unscorable" else "red"
            console.print(
                f"[{color}]{status}[/{color}]  {escape(error)}", soft_wrap=True, highlight=False
            )


def _print_summary(
    console: Console,
    found: dict[str, ResolvedReward],
    tallies: dict[str, RunningSummary],
    served: dict[str, int],
) -> None:
    from rich import box
    from rich.table import Table

    summaries = {name: tally.summary() for name, tally in tallies.items()}
    counts = ["scored"]
    counts += [
        name
        for name in ("unscorable", "failed", "truncated")
        if any(getattr(summary, name) for summary in summaries.values())
    ]
    figures = ("mean", "sd", "p5", "p50", "p95")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    table.add_column("reward", overflow="fold", style="bold")
    for column in (*counts, *(["cached"] if any(served.values()) else []), *figures):
        table.add_column(column, justify="right", no_wrap=True)
    for name, summary in summaries.items():
        cells = [str(getattr(summary, column)) for column in counts] + (
            [str(served[name])] if any(served.values()) else []
        )
        table.add_row(
            escape(name), *cells, *(f"{getattr(summary, column):.4g}" for column in figures)
        )
    console.print(table)
    for name, tally in tallies.items():
        shown = min(EXTREMES_SHOWN, summaries[name].scored // 2)
        if shown:
            for word, files in (("best", tally.best()[:shown]), ("worst", tally.worst()[:shown])):
                listed = ", ".join(
                    f"{escape(printable(Path(file).name))} {score:.5g}" for file, score in files
                )
                console.print(f"{word:5} {escape(name)}: {listed}", soft_wrap=True, highlight=False)
    for reward in found.values():
        console.print(escape(reward.signature), soft_wrap=True, highlight=False)


def _save_sheet(tallies: dict[str, RunningSummary], pictures: ImageSource, path: Path) -> None:
    from ddpo.images import save_png
    from ddpo.rewards.image_files.sheet import extremes_sheet

    save_png(extremes_sheet(tallies, pictures), path)
