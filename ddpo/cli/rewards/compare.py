"""`ddpo rewards compare`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from ddpo.cli.device import AUTO, Device
from ddpo.cli.markup import escape
from ddpo.cli.progress import image_progress
from ddpo.cli.rewards.arguments import check_output, named_rewards, split_arguments
from ddpo.cli.rewards.left_out import print_left_out
from ddpo.cli.rewards.scorers import Cache, open_scorers
from ddpo.errors import ConfigError, RewardFailure
from ddpo.text import percent

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from ddpo.inputs.input_image import InputImage
    from ddpo.reward_quality.agreement import Correlation
    from ddpo.reward_quality.comparison import Comparison, RewardScores
    from ddpo.reward_quality.sensitivity import EditEffect
    from ddpo.rewards.scoring.resolve import ResolvedReward

SIDE_BY_SIDE = 3  # rewards in one table of edits, which 100 columns have room for
SHOWN = 5  # disagreements of each pair
REASONS_SHOWN = 10  # why pictures have no score


def compare_command(
    rewards_and_images: Annotated[
        list[str],
        typer.Argument(
            metavar="REWARD... IMAGES...",
            help="Rewards, then images, folders, tables and archives.",
        ),
    ],
    prompts: Annotated[
        Path | None, typer.Option(help="The prompts of the pictures, as in `score`.")
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="The one prompt of all pictures.")] = None,
    edits: Annotated[
        bool,
        typer.Option(help="Measure the sensitivity to small edits; scores every picture 13 times."),
    ] = True,
    out: Annotated[
        Path | None, typer.Option(help="A report to write: .json with all figures and scores.")
    ] = None,
    contact_sheet: Annotated[
        Path | None,
        typer.Option(help="A PNG to write: the pictures on which rewards disagree most."),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Pictures per call of a reward, at most.")] = 16,
    device: Device = AUTO,
    cache: Cache = None,
) -> None:
    """How alike rewards rank pictures, where they disagree, and below which difference a score means nothing."""
    specs, places = split_arguments(rewards_and_images)
    found = named_rewards(specs)
    if not found or not places:
        raise ConfigError(
            f"compare needs rewards and pictures; got {len(found)} rewards and {len(places)} files or folders"
        )
    if len(found) == 1 and (not edits or contact_sheet is not None):
        raise ConfigError(
            "with one reward there is nothing but its sensitivity to edits: name a second reward"
        )
    if out is not None:
        check_output(out, ".json")
    if contact_sheet is not None:
        check_output(contact_sheet, ".png")
    from rich.console import Console

    from ddpo.inputs.collection import image_source
    from ddpo.inputs.input_image import copied_to
    from ddpo.reward_quality.comparison import compare_rewards

    source = image_source(places, prompts, prompt)
    with TemporaryDirectory(prefix="ddpo-") as folder:
        pictures = list(copied_to(Path(folder), source))
        comparison = compare_rewards(
            _score(found, pictures, edits, batch_size, cache, device), pictures
        )
    console = Console()
    print_comparison(console, comparison)
    print_left_out(console, source)
    signatures = {name: reward.signature for name, reward in found.items()}
    for line in signatures.values():
        console.print(escape(line), soft_wrap=True)
    if out is not None:
        from ddpo.io.atomic import write_json

        write_json(out, comparison.to_dict(signatures))
        console.print(f"wrote {escape(str(out))}", soft_wrap=True)
    if contact_sheet is not None:
        from ddpo.images import save_png
        from ddpo.reward_quality.disagreement_sheet import draw_disagreements

        save_png(draw_disagreements(comparison, source), contact_sheet)
        console.print(f"wrote {escape(str(contact_sheet))}", soft_wrap=True)
    if failed := sum(one.failed for one in comparison.rewards):
        raise RewardFailure(
            f"{failed} scores could not be computed, because a reward failed; the others stand"
        )


def _score(
    found: Mapping[str, ResolvedReward],
    pictures: Sequence[InputImage],
    edits: bool,
    batch_size: int,
    cache: bool | None,
    device: str,
) -> list[RewardScores]:
    from ddpo.reward_quality.comparison import score_for_comparison

    with (
        open_scorers(found, batch_size, cache=cache, device=device) as scorers,
        image_progress(", ".join(found), len(pictures)) as advance,
    ):
        return score_for_comparison(scorers, pictures, with_edits=edits, progress=advance)


def print_comparison(console: Console, comparison: Comparison) -> None:
    """Agreement, disagreements and sensitivity, as far as there are any."""
    if comparison.agreements:
        console.print(_agreement_table(comparison))
    for note in dict.fromkeys(found.note for found in comparison.agreements.values() if found.note):
        pairs = [
            ", ".join(pair) for pair, found in comparison.agreements.items() if found.note == note
        ]
        about = (
            "; ".join(pairs)
            if len(pairs) < len(comparison.agreements)
            else "all pairs"
            if len(pairs) > 1
            else pairs[0]
        )
        console.print(f"[yellow]{escape(about)}[/yellow]: {note}", soft_wrap=True)
    for pair, found in comparison.disagreements.items():
        if found:
            console.print(_disagreement_table(comparison, pair))
    if comparison.sensitivities:
        from ddpo.reward_quality.edits import SAME_IMAGE

        names = [one.name for one in comparison.rewards]
        for start in range(0, len(names), SIDE_BY_SIDE):
            console.print(_sensitivity_table(comparison, names[start : start + SIDE_BY_SIDE]))
        console.print(
            f"mean change, mean |change|, and mean |change| / sd of the reward over the images. Noise floor: the largest median |change| "
            f"under {', '.join(SAME_IMAGE)}; a smaller difference between two images means nothing."
        )
    reasons: dict[tuple[str, str], list[str]] = {}
    for one in comparison.rewards:
        for index, reason in one.errors.items():
            reasons.setdefault((comparison.files[index], reason), []).append(one.name)
    for (file, reason), names in list(reasons.items())[:REASONS_SHOWN]:
        said = reason if reason.startswith(file) else f"{file}: {reason}"
        console.print(
            f"[yellow]no score[/yellow] from {escape(', '.join(names))}: {escape(said)}",
            soft_wrap=True,
        )


def _table(title: str) -> Table:
    from rich import box
    from rich.table import Table

    return Table(
        box=box.SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left", title_style="bold"
    )


def _agreement_table(comparison: Comparison) -> Table:
    units = "prompts" if comparison.clustered else "images"
    table = _table(f"Rank correlation   95 % percentile bootstrap over {units}")
    table.add_column("rewards")
    for column in ("Spearman ρ", "Kendall τ-b", "images", "left out"):
        table.add_column(column, justify="right", no_wrap=True)
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
    return f"{effect.mean:+.3g}  {effect.mean_abs:.3g}  {_two_digits(effect.share)}".replace(
        "-", "−"
    )


def _two_digits(share: float) -> str:
    """A share in percent with two significant digits, at least five characters wide."""
    decimals = 0
    if 0 < share < 0.0995:
        decimals = 1 if share >= 0.00995 else 2
    return f"{percent(share, decimals, space=''):>5}"
