"""`ddpo rewards compare`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

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
from ddpo.cli.misplaced import check_no_runs
from ddpo.cli.options import (
    AUTO,
    EVIDENCE,
    OUTPUT,
    AsJson,
    BatchSize,
    Device,
    ImageLimit,
    ImagePrompts,
    OnePrompt,
    RewardsAndImages,
    UseCache,
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
from ddpo.cli.rewards.scorers import open_scorers
from ddpo.errors import ConfigError, RewardFailure
from ddpo.text import percent

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from ddpo.inputs.collection import ImageSource
    from ddpo.inputs.input_image import InputImage
    from ddpo.reward_quality.agreement import Correlation
    from ddpo.reward_quality.comparison import Comparison, RewardScores
    from ddpo.reward_quality.sensitivity import EditEffect
    from ddpo.rewards.scoring.resolve import ResolvedReward

SIDE_BY_SIDE = 3  # rewards in one table of edits, which fits 100 columns
SHOWN = 5  # disagreements of each pair
REASONS_SHOWN = 10  # reasons why images have no score


@examples(
    "ddpo rewards compare sharpness darkness my_folder",
    "ddpo rewards compare sharpness darkness a.png b.png",
)
def compare_command(
    context: typer.Context,
    rewards_and_images: RewardsAndImages,
    prompts: ImagePrompts = None,
    prompt: OnePrompt = None,
    limit: ImageLimit = None,
    edits: Annotated[
        bool,
        option(
            "Sensitivity to small edits, for which every image is scored 13 times.",
            panel=EVIDENCE,
        ),
    ] = True,
    out: Annotated[
        Path | None, out_option("Report to write: .json with all figures and scores.")
    ] = None,
    contact_sheet: Annotated[
        Path | None,
        option(
            "PNG to write, of the images on which rewards disagree most.",
            metavar="FILE",
            panel=OUTPUT,
        ),
    ] = None,
    batch_size: BatchSize = 16,
    device: Device = AUTO,
    cache: UseCache = None,
    as_json: AsJson = False,
) -> None:
    """Print how alike rewards rank images, their largest disagreements, and their noise floors.

    A score difference below the noise floor means nothing. `ddpo compare` compares runs.
    """
    specs, places = split_arguments(rewards_and_images)
    check_no_runs(places)
    found = named_rewards(specs)
    _check_arguments(found, places, edits, contact_sheet)
    check_device_name(device)
    check_places([prompts] if prompts is not None and prompt is None else [])
    check_fetched(found.values())
    if out is not None:
        check_output(out, ".json")
    if contact_sheet is not None:
        check_output(contact_sheet, ".png")
    from ddpo.inputs.collection import first_images, image_source
    from ddpo.inputs.input_image import copied_to

    source = first_images(image_source(places, prompts, prompt), limit)
    for path in (out, contact_sheet):
        own_output(context, path, "ddpo rewards compare", (*places, prompts))
    from ddpo.reward_quality.comparison import compare_rewards

    with TemporaryDirectory(prefix="ddpo-") as folder:
        images = list(copied_to(Path(folder), source))
        scores = _score(found, images, edits, batch_size, cache, device)
        comparison = compare_rewards(scores, images)
    console = note_console() if as_json else new_console()
    signatures = {name: reward.signature for name, reward in found.items()}
    if as_json:
        print_json(comparison.to_dict(signatures))
    else:
        print_comparison(console, comparison)
        for line in signatures.values():
            console.print(escape(line), soft_wrap=True)
    print_left_out(console, source)
    _write(comparison, signatures, source, out, contact_sheet, console)
    if failed := sum(one.failed for one in comparison.rewards):
        raise RewardFailure(
            f"{failed} scores could not be computed, because a reward failed; the others stand"
        )
    check_scored({one.name: one.scored for one in comparison.rewards})


def _write(
    comparison: Comparison,
    signatures: Mapping[str, str],
    source: ImageSource,
    out: Path | None,
    contact_sheet: Path | None,
    console: Console,
) -> None:
    """Writes the report and the contact sheet, as far as they are asked for."""
    if out is not None:
        from ddpo.io.atomic import write_json

        write_json(out, comparison.to_dict(signatures))
        console.print(f"wrote {escape(str(out))}", soft_wrap=True)
    if contact_sheet is not None and not any(comparison.disagreements.values()):
        console.print("no contact sheet is written: the rewards do not disagree on any image")
    elif contact_sheet is not None:
        from ddpo.images import save_png
        from ddpo.reward_quality.disagreement_sheet import draw_disagreements

        save_png(draw_disagreements(comparison, source), contact_sheet)
        console.print(f"wrote {escape(str(contact_sheet))}", soft_wrap=True)


def _check_arguments(
    found: Mapping[str, ResolvedReward],
    places: Sequence[Path],
    edits: bool,
    contact_sheet: Path | None,
) -> None:
    """Checks that there is something to compare.

    Raises:
        ConfigError: Rewards or images are missing, or one reward has nothing to be compared with.
    """
    if not found or not places:
        raise ConfigError(
            f"compare needs rewards and images; got {len(found)} rewards and "
            f"{len(places)} files or folders"
        )
    if len(found) == 1 and (not edits or contact_sheet is not None):
        raise ConfigError(
            "with one reward there is nothing but its sensitivity to edits: name a second reward"
        )


def _score(
    found: Mapping[str, ResolvedReward],
    images: Sequence[InputImage],
    edits: bool,
    batch_size: int,
    cache: bool | None,
    device: str,
) -> list[RewardScores]:
    from ddpo.reward_quality.comparison import score_for_comparison

    with (
        open_scorers(found, batch_size, cache=cache, device=device) as scorers,
        image_progress(", ".join(found), len(images)) as advance,
    ):
        return score_for_comparison(scorers, images, with_edits=edits, progress=advance)


def print_comparison(console: Console, comparison: Comparison) -> None:
    """Prints agreement, disagreements and sensitivity, as far as they were computed."""
    if comparison.agreements:
        console.print(_agreement_table(comparison))
        _print_agreement_notes(console, comparison)
    for pair, found in comparison.disagreements.items():
        if found:
            console.print(_disagreement_table(comparison, pair))
    if comparison.sensitivities:
        _print_sensitivities(console, comparison)
    _print_missing_scores(console, comparison)


def _print_agreement_notes(console: Console, comparison: Comparison) -> None:
    """Prints each note once, with the pairs of rewards that it is about."""
    pairs: dict[str, list[str]] = {}
    for pair, found in comparison.agreements.items():
        if found.note:
            pairs.setdefault(found.note, []).append(", ".join(pair))
    for note, named in pairs.items():
        about = "; ".join(named)
        if 1 < len(named) == len(comparison.agreements):
            about = "all pairs"
        console.print(f"[yellow]{escape(about)}[/yellow]: {note}", soft_wrap=True)


def _print_sensitivities(console: Console, comparison: Comparison) -> None:
    from ddpo.reward_quality.edits import SAME_IMAGE

    names = [one.name for one in comparison.rewards]
    for start in range(0, len(names), SIDE_BY_SIDE):
        console.print(_sensitivity_table(comparison, names[start : start + SIDE_BY_SIDE]))
    console.print(
        "mean change, mean |change|, and mean |change| / sd of the reward over the images. "
        f"Noise floor: the largest median |change| under {', '.join(SAME_IMAGE)} "
        "(without flip for a reward that reads the prompt); "
        "a smaller difference between two images means nothing."
    )


def _print_missing_scores(console: Console, comparison: Comparison) -> None:
    """Prints the first reasons why images have no score, with the rewards that gave them."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for one in comparison.rewards:
        for index, reason in one.errors.items():
            reasons.setdefault((comparison.files[index], reason), []).append(one.name)
    for (file, reason), names in list(reasons.items())[:REASONS_SHOWN]:
        text = reason if reason.startswith(file) else f"{file}: {reason}"
        console.print(
            f"[yellow]no score[/yellow] from {escape(', '.join(names))}: {escape(text)}",
            soft_wrap=True,
        )


def _table(title: str) -> Table:
    return simple_table(title=title, title_justify="left", title_style="bold")


def _agreement_table(comparison: Comparison) -> Table:
    units = "prompts" if comparison.clustered else "images"
    table = _table(f"Rank correlation   95 % percentile bootstrap over {units}")
    table.add_column("rewards", overflow="fold")
    add_number_columns(table, ("Spearman ρ", "Kendall τ-b", "images", "left out"))
    for (a, b), found in comparison.agreements.items():
        table.add_row(
            escape(f"{a}, {b}"),
            _correlation(found.spearman),
            _correlation(found.kendall),
            str(found.n),
            str(found.excluded),
        )
    return table


def _correlation(found: Correlation) -> str:
    if found.value != found.value:
        return "–"
    interval = f"{found.low:+.2f} … {found.high:+.2f}" if found.low == found.low else "no interval"
    return f"{found.value:+.2f}  ({interval})".replace("-", "−")


def _disagreement_table(comparison: Comparison, pair: tuple[str, str]) -> Table:
    table = _table("Largest disagreements   percentile among the images, and score")
    scores = [next(one.scores for one in comparison.rewards if one.name == name) for name in pair]
    for name in pair:
        table.add_column(escape(name), justify="right", max_width=24)
    table.add_column("image", overflow="fold")
    for one in comparison.disagreements[pair][:SHOWN]:
        cells = [
            f"{100 * percentile:.0f} %  {values[one.index]:10.5g}"
            for percentile, values in zip((one.percentile_a, one.percentile_b), scores, strict=True)
        ]
        table.add_row(*cells, escape(comparison.files[one.index]))
    return table


def _sensitivity_table(comparison: Comparison, names: Sequence[str]) -> Table:
    table = _table("Sensitivity to small edits")
    table.add_column("edit", no_wrap=True)
    for name in names:
        table.add_column(escape(name), justify="right", max_width=32)
    found = [comparison.sensitivities[name] for name in names]
    for place, effect in enumerate(found[0].effects):
        table.add_row(
            escape(effect.edit),
            *(_effect(one.effects[place]) for one in found),
            end_section=place == len(found[0].effects) - 1,
        )
    table.add_row("sd over images", *(f"{one.spread:.4g}{' ' * 7}" for one in found))
    table.add_row(
        "noise floor",
        *(f"{one.noise_floor:.4g}  {_two_digits(one.noise_share)}" for one in found),
        style="bold",
    )
    table.add_row("  set by", *(f"{one.noise_edit}{' ' * 7}" for one in found))
    return table


def _effect(effect: EditEffect) -> str:
    text = f"{effect.mean:+.3g}  {effect.mean_abs:.3g}  {_two_digits(effect.share)}"
    return text.replace("-", "−")


def _two_digits(share: float) -> str:
    """A share in percent with two significant digits, at least five characters wide."""
    decimals = 0
    if 0 < share < 0.0995:
        decimals = 1 if share >= 0.00995 else 2
    return f"{percent(share, decimals, space=''):>5}"
