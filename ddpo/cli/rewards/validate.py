"""`ddpo rewards validate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ddpo.cli.commands import examples, renamed
from ddpo.cli.console import (
    add_number_columns,
    escape,
    image_progress,
    new_console,
    note_console,
    print_json,
    simple_table,
)
from ddpo.cli.early import check_device_name, check_fetched, check_places
from ddpo.cli.options import (
    AUTO,
    INPUT,
    OUTPUT,
    AsJson,
    BatchSize,
    Device,
    RewardName,
    UseCache,
    limit_option,
    option,
    out_option,
)
from ddpo.cli.rewards.arguments import check_output, own_output
from ddpo.cli.rewards.scorers import open_scorers
from ddpo.errors import ConfigError, RewardFailure
from ddpo.stats.tie_names import TIE_CONVENTIONS
from ddpo.text import percent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console
    from rich.table import Table

    from ddpo.reward_quality.preference_file import Preferences
    from ddpo.reward_quality.preferences import ScoredPairs, Validation
    from ddpo.rewards.scoring.resolve import ResolvedReward
    from ddpo.stats.bradley_terry import Calibration

REASONS_SHOWN = 3


@examples("ddpo rewards validate aesthetic --preferences pairs.csv")
@renamed({"--images": "--root"})
def validate_command(
    context: typer.Context,
    name: RewardName,
    preferences: Annotated[
        Path,
        option(
            "Table of pairs (image_a, image_b, label, prompt) or rankings, "
            "as of Pick-a-Pic, HPDv2 or ImageReward.",
            metavar="FILE",
            panel=INPUT,
        ),
    ],
    images: Annotated[
        Path | None,
        option(
            "Folder that image paths are relative to; default: that of the table.",
            "--root",
            metavar="FOLDER",
            panel=INPUT,
        ),
    ] = None,
    limit: Annotated[int | None, limit_option("Number of first pairs that are judged.")] = None,
    ties: Annotated[
        str,
        option(
            "Tie convention of the headline: imagereward, hpsv2, pickapic or acc_eq.",
            metavar="WORD",
            panel=OUTPUT,
        ),
    ] = TIE_CONVENTIONS[0],
    out: Annotated[Path | None, out_option("Report to write: .json with all figures.")] = None,
    batch_size: BatchSize = 16,
    device: Device = AUTO,
    cache: UseCache = None,
    as_json: AsJson = False,
) -> None:
    """Print the accuracy and calibration of a reward against human choices.

    The accuracy is that of pairs, by several tie conventions. The calibration tells whether
    differences of scores can be read as probabilities.
    """
    from ddpo.rewards.zoo import resolve

    found = resolve(name)
    check_device_name(device)
    check_places([preferences])
    _check_options(images, ties, out)
    check_fetched([found])
    from ddpo.reward_quality.preference_file import read_preferences

    rows = read_preferences(preferences, images, limit)
    next(iter(rows), None)  # a table that cannot be read is refused before torch is imported
    own_output(context, out, "ddpo rewards validate", [preferences])
    from ddpo.reward_quality.preferences import validate_pairs

    scored = _score(found, rows, batch_size, cache, device)
    validation = validate_pairs(scored, lower_is_better=found.card.direction == "lower")
    source = {"preferences": preferences.name, "signature": found.signature, "headline": ties}
    record = {**source, **validation.to_dict(), **_counts(rows)}
    console = note_console() if as_json else new_console()
    if as_json:
        print_json(record)
    else:
        print_validation(console, found.card.id, validation, ties)
        _print_origin(console, rows)
    _print_reasons(console, scored)
    console.print(escape(found.signature), soft_wrap=True)
    if out is not None:
        _write_record(console, record, out)
    _check_failures(scored)


def _print_reasons(console: Console, scored: ScoredPairs) -> None:
    """Prints the first reasons why images have no score."""
    for reason in scored.errors[:REASONS_SHOWN]:
        console.print(f"[yellow]no score[/yellow]  {escape(reason)}", soft_wrap=True)


def _write_record(console: Console, record: Mapping[str, Any], out: Path) -> None:
    """Writes all figures, and prints the path."""
    from ddpo.io.atomic import write_json

    write_json(out, record)
    console.print(f"wrote {escape(str(out))}", soft_wrap=True)


def _check_failures(scored: ScoredPairs) -> None:
    """Raises if images have no score because the reward failed.

    Raises:
        RewardFailure: It failed.
    """
    if scored.failed:
        raise RewardFailure(
            f"{scored.failed} images could not be scored, because the reward failed (see above); "
            "the others stand"
        )


def _check_options(images: Path | None, ties: str, out: Path | None) -> None:
    """Checks the options before time is spent on scores.

    Raises:
        ConfigError: A file cannot be written, or a folder does not exist.
        UnknownNameError: The tie convention is unknown.
    """
    if out is not None:
        check_output(out, ".json")
    if images is not None and not images.is_dir():
        raise ConfigError(f"--root {images}: no such folder")
    if ties not in TIE_CONVENTIONS:
        from ddpo.registry import unknown_name

        raise unknown_name("tie convention", ties, TIE_CONVENTIONS)


def _counts(rows: Preferences) -> dict[str, int]:
    return {
        "rankings": rows.rankings,
        "ranked_pairs": rows.ranked_pairs,
        "unlabelled": rows.unlabelled,
    }


def _score(
    found: ResolvedReward, rows: Preferences, batch_size: int, cache: bool | None, device: str
) -> ScoredPairs:
    from ddpo.reward_quality.preferences import score_pairs

    name = found.card.id
    with (
        open_scorers({name: found}, batch_size, cache=cache, device=device) as scorers,
        image_progress(name, None) as advance,  # the number of distinct images is not known yet
    ):
        return score_pairs(scorers[name], rows, batch_size, advance)


def _print_origin(console: Console, rows: Preferences) -> None:
    """Prints the number of pairs that come from rankings, and of rows without a label."""
    if rows.rankings:
        console.print(
            f"{rows.ranked_pairs} pairs come from {rows.rankings} rankings; they are resampled "
            "by prompt, for the pairs of a ranking are not independent",
            soft_wrap=True,
        )
    if rows.unlabelled:
        console.print(f"{rows.unlabelled} rows left out: has_label is false", soft_wrap=True)


def print_validation(console: Console, reward: str, validation: Validation, headline: str) -> None:
    """Prints the headline, the accuracy by every convention, and the calibration."""
    best = validation.accuracy[headline]
    interval = "no interval"
    if best.low == best.low:
        interval = f"95 % interval {percent(best.low, 1)} to {percent(best.high, 1)}"
    console.print(
        f"[bold]{escape(reward)}[/bold]: pairwise accuracy {percent(best.value, 1)} "
        f"({headline}; {interval})",
        soft_wrap=True,
    )
    direction = "; a lower score counts as better" if validation.lower_is_better else ""
    console.print(
        f"{validation.pairs} pairs of {validation.prompts} prompts: "
        f"first preferred {validation.preferred_first}, "
        f"second {validation.preferred_second}, tie {validation.ties}; "
        f"equal scores {validation.equal_scores}; "
        f"left out, without a score, {validation.excluded}{direction}"
    )
    console.print(_accuracy_table(validation))
    _print_calibration(console, validation.calibration)


def _accuracy_table(validation: Validation) -> Table:
    from ddpo.stats.pairwise import CONVENTIONS

    table = simple_table()
    table.add_column("ties as in", no_wrap=True)
    add_number_columns(table, ("accuracy", "95 % interval", "pairs", "threshold"))
    table.add_column("rule")
    for name, found in validation.accuracy.items():
        interval = "–"
        if found.low == found.low:
            interval = f"{percent(found.low, 1)} … {percent(found.high, 1)}"
        threshold = "" if found.threshold != found.threshold else f"{found.threshold:.3g}"
        rule = CONVENTIONS[name].rule
        table.add_row(name, percent(found.value, 1), interval, str(found.n), threshold, rule)
    return table


def _print_calibration(console: Console, found: Calibration) -> None:
    if found.note:
        console.print(f"[yellow]calibration[/yellow]: {found.note}", soft_wrap=True)
    if not found.bins:
        return
    console.print(
        "Calibration of σ(difference / temperature), temperature fitted on other prompts "
        f"({found.temperature:.4g} on all):\n"
        f"ECE {found.ece:.3f}, Brier score {found.brier:.3f} (coin 0.25), "
        f"log-loss {found.log_loss:.3f} (coin 0.693)"
    )
    table = simple_table()
    add_number_columns(table, ("predicted", "mean predicted", "preferred", "pairs"))
    for one in found.bins:
        table.add_row(
            f"{percent(one.low)} … {percent(one.high)}",
            percent(one.confidence, 1),
            percent(one.accuracy, 1),
            str(one.n),
        )
    console.print(table)
