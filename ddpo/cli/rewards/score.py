"""`ddpo rewards score`."""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ddpo.cli.commands import examples
from ddpo.cli.console import (
    add_number_columns,
    escape,
    image_progress,
    new_console,
    note_console,
    print_json,
    print_left_out,
    simple_table,
)
from ddpo.cli.early import check_device_name, check_fetched, check_places
from ddpo.cli.options import (
    AUTO,
    EXECUTION,
    OUTPUT,
    AsJson,
    BatchSize,
    Device,
    ImageLimit,
    ImagePrompts,
    OnePrompt,
    RewardsAndImages,
    UseCache,
    number_option,
    option,
    out_option,
)
from ddpo.cli.rewards.arguments import (
    check_output,
    check_scored,
    named_rewards,
    own_output,
    split_arguments,
)
from ddpo.cli.rewards.scorers import TIMEOUT, open_scorers
from ddpo.errors import ConfigError, RewardFailure
from ddpo.io.atomic import printable
from ddpo.ranges import SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from rich.console import Console

    from ddpo.inputs.collection import ImageSource
    from ddpo.rewards.image_files import RunningSummary, ScoreRow, TableJournal
    from ddpo.rewards.scoring.resolve import ResolvedReward
    from ddpo.rewards.scoring.scorer import Scorer

Record = dict[str, Any]
"""The scores of an image as plain values."""

ERRORS_SHOWN = 10
EXTREMES_SHOWN = 3
LABEL = 40  # characters of the name of a reward that stays on its line
EXAMPLE = "ddpo rewards score compressibility my_folder"


@examples(
    "ddpo rewards score compressibility my_folder",
    "ddpo rewards score aesthetic my_folder -o scores.csv",
    'ddpo rewards score clip_score cat.png --prompt "a cat"',
)
def score_command(
    context: typer.Context,
    arguments: RewardsAndImages,
    prompts: ImagePrompts = None,
    prompt: OnePrompt = None,
    limit: ImageLimit = None,
    out: Annotated[
        Path | None,
        out_option("Table to write or replace: .parquet, .csv or .jsonl."),
    ] = None,
    contact_sheet: Annotated[
        Path | None,
        option("PNG to write, of the best and the worst images.", metavar="FILE", panel=OUTPUT),
    ] = None,
    batch_size: BatchSize = 16,
    timeout: Annotated[
        float,
        number_option(SECONDS, "Time limit for a call of a reward, in seconds.", panel=EXECUTION),
    ] = TIMEOUT,
    device: Device = AUTO,
    cache: UseCache = None,
    as_json: AsJson = False,
) -> None:
    """Print the scores of images by one reward or several, with a summary and the signatures.

    Rewards that judge images together, such as vendi, take those of equal prompt as a group.
    A stopped scoring with --out resumes when the command is repeated, except with such a reward.
    Prompts also come from metadata.jsonl, from cat.txt beside cat.png, or from the image itself:
    docs/input-formats.md has every format.
    """

    specs, places = split_arguments(arguments)
    found = named_rewards(specs)
    if not found or not places:
        raise ConfigError(f"name a reward and images, as in: {EXAMPLE}")
    check_device_name(device)
    check_places([prompts] if prompts is not None and prompt is None else [])
    _check_outputs(out, contact_sheet)
    from ddpo.inputs.collection import first_images, image_source

    source = first_images(image_source(places, prompts, prompt), limit)
    _check_prompts(found.values(), source)
    check_fetched(found.values())
    for path in (out, contact_sheet):
        own_output(context, path, "ddpo rewards score", (*places, prompts))
    console = note_console() if as_json else new_console()
    records: list[Record] | None = [] if as_json else None
    with open_scorers(found, batch_size, cache=cache, timeout=timeout, device=device) as scorers:
        summaries = _score(console, list(scorers.values()), found, source, batch_size, out, records)
        cached = {scorer.name: scorer.served for scorer in scorers.values()}
    if records is not None:
        _print_records(records, summaries, found, cached, source.left_out)
    else:
        _print_summary(console, summaries, cached)
        for name, summary in summaries.items():
            _print_extremes(console, name, summary)
        for reward in found.values():
            console.print(escape(reward.signature), soft_wrap=True, highlight=False)
    print_left_out(console, source)
    if contact_sheet is not None:
        _save_sheet(summaries, source, contact_sheet)
    for path in (out, contact_sheet):
        if path is not None:
            console.print(f"wrote {escape(str(path))}", soft_wrap=True)
    _raise_for_failures(summaries)


def _check_outputs(out: Path | None, contact_sheet: Path | None) -> None:
    """Checks that the files can be written before time is spent on their contents.

    Raises:
        ConfigError: A suffix is unknown, or a place is not writable.
    """
    from ddpo.io.tables import check_table_path

    if out is not None:
        check_table_path(out)
    if contact_sheet is not None:
        check_output(contact_sheet, ".png")


def _check_prompts(found: Iterable[ResolvedReward], images: ImageSource) -> None:
    """Checks on the first image that prompts are there if a reward needs them.

    Raises:
        ConfigError: There are none.
    """
    needing = [reward.card.id for reward in found if reward.card.needs_prompt]
    first = next(iter(images)) if needing else None
    if first is not None and first.prompt is None and first.no_prompt is None:
        raise ConfigError(
            f"reward {needing[0]!r} judges an image by its prompt: "
            "give --prompts FILE or --prompt TEXT, or put cat.txt beside cat.png"
        )


def _raise_for_failures(summaries: Mapping[str, RunningSummary]) -> None:
    """Raises if a reward failed, or if a reward scored no image."""
    results = {name: summary.summary() for name, summary in summaries.items()}
    failed = sum(result.failed for result in results.values())
    if failed:
        raise RewardFailure(
            f"{failed} score{'s' * (failed > 1)} could not be computed because a reward failed; "
            "the others stand"
        )
    check_scored({name: result.scored for name, result in results.items()})


def _score(
    console: Console,
    scorers: Sequence[Scorer],
    found: dict[str, ResolvedReward],
    images: ImageSource,
    batch_size: int,
    out: Path | None,
    records: list[Record] | None,
) -> dict[str, RunningSummary]:
    """Scores all images, prints, writes or records them, and returns each reward's summary."""
    from ddpo.rewards.image_files import RunningSummary, TableJournal, journal_path, write_table

    summaries = {name: RunningSummary() for name in found}
    images_done = 0
    with ExitStack() as stack:
        journal = None
        if out is not None:
            identities = [reward.identity for reward in found.values()]
            journal = stack.enter_context(TableJournal(journal_path(out), identities))
        advance = stack.enter_context(image_progress(", ".join(found), len(images)))
        for rows in _rows(scorers, found, images, batch_size, journal):
            advance(1)
            images_done += 1
            for row in rows:
                summaries[row.reward].add(row)
            if records is not None:
                records.append(_record(rows))
            elif out is None:
                _print_scores(console, rows)
            _print_errors(console, rows, summaries)
        if journal is not None and out is not None:
            signatures = {name: reward.signature for name, reward in found.items()}
            expected = images_done * len(found)
            write_table(journal.rows, out, signatures, expected)
            journal.remove()
    return summaries


def _rows(
    scorers: Sequence[Scorer],
    found: dict[str, ResolvedReward],
    images: ImageSource,
    batch_size: int,
    journal: TableJournal | None,
) -> Iterator[tuple[ScoreRow, ...]]:
    """The rows of each image, those in the journal of a stopped scoring first."""
    from ddpo.rewards.image_files import score_files, score_groups

    grouped = any("group" in reward.card.inputs for reward in found.values())
    score = score_groups if grouped else score_files
    if journal is None:
        yield from score(scorers, images, batch_size)
        return
    done, left = journal.resume([] if grouped else images)  # half a group is of no use
    yield from done
    waiting = journal.watched(images) if grouped else left
    for rows in score(scorers, waiting, batch_size):
        journal.append(rows)
        yield rows


def _record(rows: Sequence[ScoreRow]) -> Record:
    """The scores of one image as plain values."""
    return {
        "file": printable(rows[0].file),
        "prompt": rows[0].prompt,
        "scores": {row.reward: row.score for row in rows},
        "errors": {row.reward: row.error for row in rows if row.error is not None},
    }


def _print_records(
    records: list[Record],
    summaries: dict[str, RunningSummary],
    found: dict[str, ResolvedReward],
    cached: dict[str, int],
    left_out: Mapping[str, int],
) -> None:
    """Prints all scores with their summaries as one JSON document."""
    rewards = {
        name: {
            "signature": found[name].signature,
            "direction": found[name].card.direction,
            **asdict(summary.summary()),
            "cached": cached[name],
        }
        for name, summary in summaries.items()
    }
    print_json({"rewards": rewards, "images": records, "left_out": dict(left_out)})


def _print_scores(console: Console, rows: Sequence[ScoreRow]) -> None:
    scores = "  ".join(
        f"{'–' if row.score is None else format(row.score, '.4f'):>10}" for row in rows
    )
    console.print(f"{scores}  {escape(printable(rows[0].file))}", soft_wrap=True, highlight=False)


def _print_errors(
    console: Console, rows: Sequence[ScoreRow], summaries: dict[str, RunningSummary]
) -> None:
    """Prints one line for each reason; of an unreadable file, one line for all rewards."""
    shown = sum(summary.without_score for summary in summaries.values())
    if shown > ERRORS_SHOWN * len(summaries):
        return
    for error in dict.fromkeys(row.error for row in rows if row.error is not None):
        status = next(row.status for row in rows if row.error == error)
        color = "yellow" if status == "unscorable" else "red"
        console.print(
            f"[{color}]{status}[/{color}]  {escape(error)}", soft_wrap=True, highlight=False
        )


def _print_summary(
    console: Console, summaries: dict[str, RunningSummary], cached: dict[str, int]
) -> None:
    """Prints a table with counts, mean and percentiles of each reward's scores."""
    figures = ("mean", "sd", "p5", "p50", "p95")
    results = {name: summary.summary() for name, summary in summaries.items()}
    counts = ["scored"]
    counts += [
        name
        for name in ("unscorable", "failed", "truncated")
        if any(getattr(result, name) for result in results.values())
    ]
    with_cache = any(cached.values())
    table = simple_table(padding=(0, 1))
    table.add_column("reward", no_wrap=len(max(results, key=len)) <= LABEL, style="bold")
    add_number_columns(table, [*counts, *(["cached"] if with_cache else []), *figures])
    for name, result in results.items():
        cells = [str(getattr(result, column)) for column in counts]
        if with_cache:
            cells.append(str(cached[name]))
        values = [getattr(result, column) for column in figures]
        cells += ["–" if math.isnan(value) else f"{value:.4g}" for value in values]
        table.add_row(escape(name), *cells)
    console.print(table)


def _print_extremes(console: Console, name: str, summary: RunningSummary) -> None:
    """Prints the best and the worst images of one reward; none if only one was scored."""
    shown = min(EXTREMES_SHOWN, summary.summary().scored // 2)
    if not shown:
        return
    for word, files in (("best", summary.best()[:shown]), ("worst", summary.worst()[:shown])):
        listed = ", ".join(
            f"{escape(printable(Path(file).name))} {score:.5g}" for file, score in files
        )
        console.print(f"{word:5} {escape(name)}: {listed}", soft_wrap=True, highlight=False)


def _save_sheet(summaries: dict[str, RunningSummary], images: ImageSource, path: Path) -> None:
    from ddpo.images import save_png
    from ddpo.rewards.image_files.sheet import extremes_sheet

    save_png(extremes_sheet(summaries, images), path)
