"""`ddpo rewards calibrate`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ddpo.cli.commands import examples
from ddpo.cli.console import (
    add_number_columns,
    escape,
    image_progress,
    new_console,
    print_json,
    print_left_out,
    simple_table,
)
from ddpo.cli.early import check_device_name, check_fetched, check_places
from ddpo.cli.options import (
    AUTO,
    AsJson,
    BatchSize,
    Device,
    ImageLimit,
    ImagePrompts,
    OnePrompt,
    RewardName,
    UseCache,
    out_option,
)
from ddpo.cli.rewards.arguments import check_output, own_output
from ddpo.cli.rewards.scorers import open_scorers

if TYPE_CHECKING:
    from rich.console import Console

    from ddpo.rewards.scoring.standardise import ScoreDistribution


@examples("ddpo rewards calibrate sharpness my_folder -o z.json")
def calibrate_command(
    context: typer.Context,
    reward: RewardName,
    images: Annotated[
        list[Path],
        typer.Argument(metavar="IMAGES", help="Images, folders, tables and archives."),
    ],
    out: Annotated[Path, out_option("The .json file to write, for z=FILE.")],
    prompts: ImagePrompts = None,
    prompt: OnePrompt = None,
    limit: ImageLimit = None,
    batch_size: BatchSize = 16,
    device: Device = AUTO,
    cache: UseCache = None,
    as_json: AsJson = False,
) -> None:
    """Write the distribution of a reward's scores on your images, by which it is standardised.

    Any expression of rewards then takes it as NAME:z=FILE.
    """

    from ddpo.rewards.zoo import resolve

    found = resolve(reward)
    check_device_name(device)
    check_places([*images, *([prompts] if prompts is not None and prompt is None else [])])
    check_output(out, ".json")
    check_fetched([found])
    from ddpo.inputs.collection import first_images, image_source

    source = first_images(image_source(images, prompts, prompt), limit)
    own_output(context, out, "ddpo rewards calibrate", (*images, prompts))
    from ddpo.rewards.scoring.standardise import save_reference
    from ddpo.rewards.tools.calibrate import calibrate

    name = found.card.id
    with (
        open_scorers({name: found}, batch_size, cache=cache, device=device) as scorers,
        image_progress(name, len(source)) as advance,
    ):
        distribution = calibrate(
            found, source, batch_size, lambda _: scorers[name], lambda: advance(1)
        )
    save_reference(distribution, out)
    if as_json:
        print_json(asdict(distribution) | {"out": str(out)})
        return
    console = new_console()
    _print_distribution(console, distribution)
    comma = "," if "=" in reward else ":"
    console.print(
        f"wrote {escape(str(out))}; use it as --reward {escape(reward)}{comma}z={escape(str(out))}",
        soft_wrap=True,
        highlight=False,
    )
    print_left_out(console, source)


def _print_distribution(console: Console, distribution: ScoreDistribution) -> None:
    figures = {"mean": distribution.mean, "sd": distribution.sd}
    figures |= {f"p{name}": distribution.percentiles[name] for name in ("5", "50", "95")}
    table = simple_table()
    add_number_columns(table, ("scored", "unscorable", *figures))
    table.add_row(
        str(distribution.count),
        str(distribution.unscorable),
        *(f"{value:.5g}" for value in figures.values()),
    )
    console.print(table)
    console.print(escape(distribution.signature), soft_wrap=True, highlight=False)
