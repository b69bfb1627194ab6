"""`ddpo rewards bench`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ddpo.cli.device import AUTO, Device
from ddpo.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

    from ddpo.rewards.tools.bench import BenchRecord


def bench_command(
    name: Annotated[
        str,
        typer.Argument(
            help="A reward of `ddpo rewards list`, ./file.py:Object or package.module:Object."
        ),
    ],
    pictures: Annotated[
        list[Path] | None,
        typer.Argument(help="Pictures and folders to score; drawn ones if none is named."),
    ] = None,
    images: Annotated[int, typer.Option(help="How many pictures a round scores.", min=1)] = 64,
    size: Annotated[
        int, typer.Option(help="Width and height of the pictures, in pixels.", min=1)
    ] = 512,
    batch_sizes: Annotated[
        str, typer.Option(help="Pictures per call, separated by commas.")
    ] = "1,4,16,64",
    device: Device = AUTO,
    repeats: Annotated[int, typer.Option(help="Rounds; the median counts.", min=1)] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Images per second by batch size, peak memory, and the share of the time that is spent outside the reward itself."""
    sizes = _sizes(batch_sizes, images)
    from rich.console import Console

    from ddpo.devices import resolve_device
    from ddpo.inputs.image_files import find_images
    from ddpo.rewards.tools.bench import bench, bench_images, fitted_images, make_on
    from ddpo.rewards.zoo import resolve

    found = resolve(name)
    device = resolve_device(device)
    paths = find_images(pictures or [])
    with Console(stderr=True).status(
        f"scoring {images} pictures, {repeats} times with each batch size"
    ):
        reward = make_on(found, device)
        array = fitted_images(paths, images, size) if paths else bench_images(images, size)
        records = list(bench(reward, array, sizes, device, repeats))
    if as_json:
        typer.echo(json.dumps([record.to_dict() for record in records], indent=2))
        return
    console = Console()
    console.print(_table(records))
    what = f"{len(paths)} files" if paths else "drawn"
    console.print(
        f"{found.card.id} on {device}: {images} pictures of {size}×{size} ({what}), {repeats} rounds",
        soft_wrap=True,
    )
    console.print("outside: share of the time in which no call of the reward was running")
    console.print(found.signature, soft_wrap=True, markup=False)


def _sizes(text: str, images: int) -> list[int]:
    """The batch sizes; those above the number of pictures are left out if they are the default ones."""
    try:
        sizes = [int(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(
            f"--batch-sizes must be whole numbers separated by commas, got {text!r}"
        ) from None
    return [size for size in sizes if size <= images] if text == "1,4,16,64" else sizes


def _table(records: list[BenchRecord]) -> Table:
    from rich import box
    from rich.table import Table

    with_gpu = any(record.peak_gpu_mb is not None for record in records)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in (
        "batch size",
        "images/s",
        "lowest … highest",
        "ms/image",
        "outside",
        "peak memory",
        *(["GPU"] * with_gpu),
    ):
        table.add_column(column, justify="right", no_wrap=True)
    for record in records:
        cells = [
            f"{record.batch_size}",
            f"{record.rate:,.1f}",
            f"{record.rate_low:,.1f} … {record.rate_high:,.1f}",
        ]
        cells += [
            f"{1000 / record.rate:.3g}",
            f"{100 * record.outside:.1f} %",
            f"{record.peak_memory_mb:,.0f} MB",
        ]
        table.add_row(
            *cells, *([f"{record.peak_gpu_mb:,.0f} MB"] if record.peak_gpu_mb is not None else [])
        )
    return table
