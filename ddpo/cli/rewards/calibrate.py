"""`ddpo rewards calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ddpo.cli.device import AUTO, Device
from ddpo.cli.markup import escape
from ddpo.cli.progress import image_progress
from ddpo.cli.rewards.arguments import check_output
from ddpo.cli.rewards.left_out import print_left_out
from ddpo.cli.rewards.scorers import Cache, open_scorers

if TYPE_CHECKING:
    from rich.console import Console

    from ddpo.rewards.scoring.standardise import ScoreDistribution


def calibrate_command(
    reward: Annotated[
        str,
        typer.Argument(
            help="A reward of `ddpo rewards list`, ./file.py:Object or package.module:Object."
        ),
    ],
    images: Annotated[list[Path], typer.Argument(help="Images, folders, tables and archives.")],
    out: Annotated[Path, typer.Option(help="The .json file to write, for z=FILE.")],
    prompts: Annotated[
        Path | None,
        typer.Option(help=".txt with one line per image, or a table with files and prompts."),
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="The one prompt of all pictures.")] = None,
    batch_size: Annotated[int, typer.Option(help="Pictures per call of the reward, at most.")] = 16,
    device: Device = AUTO,
    cache: Cache = None,
) -> None:
    """Stores where a reward's scores lie on your pictures, so that it can be standardised: NAME:z=FILE in any expression of rewards."""
    from rich.console import Console

    from ddpo.rewards.zoo import resolve

    found = resolve(reward)
    check_output(out, ".json")
    from ddpo.inputs.collection import image_source
    from ddpo.rewards.scoring.standardise import save_reference
    from ddpo.rewards.tools.calibrate import calibrate

    pictures = image_source(images, prompts, prompt)
    name = found.card.id
    with (
        open_scorers({name: found}, batch_size, cache=cache, device=device) as scorers,
        image_progress(name, len(pictures)) as advance,
    ):
        reference = calibrate(
            found, pictures, batch_size, lambda _: scorers[name], lambda: advance(1)
        )
    save_reference(reference, out)
    console = Console()
    _print_reference(console, reference, reward, out)
    print_left_out(console, pictures)


def _print_reference(
    console: Console, reference: ScoreDistribution, reward: str, out: Path
) -> None:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    figures = {
        "mean": reference.mean,
        "sd": reference.sd,
        **{f"p{name}": reference.percentiles[name] for name in ("5", "50", "95")},
    }
    for column in ("scored", "unscorable", *figures):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_row(
        str(reference.count),
        str(reference.unscorable),
        *(f"{value:.5g}" for value in figures.values()),
    )
    console.print(table)
    console.print(escape(reference.signature), soft_wrap=True, highlight=False)
    comma = "," if "=" in reward else ":"
    console.print(
        f"wrote {escape(str(out))}; use it as --reward {escape(reward)}{comma}z={escape(str(out))}",
        soft_wrap=True,
        highlight=False,
    )
