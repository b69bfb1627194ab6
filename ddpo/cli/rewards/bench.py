"""`ddpo rewards bench`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from ddpo.cli.commands import examples, renamed
from ddpo.cli.console import (
    add_number_columns,
    new_console,
    note_console,
    print_json,
    simple_table,
)
from ddpo.cli.early import check_device_name, check_fetched, check_places, check_reward
from ddpo.cli.options import (
    AUTO,
    EXECUTION,
    INPUT,
    AsJson,
    Device,
    RewardName,
    number_option,
    option,
)
from ddpo.errors import ConfigError
from ddpo.ranges import MILLION, Range

if TYPE_CHECKING:
    from rich.table import Table

    from ddpo.rewards.tools.bench import BenchRecord

BATCH_SIZES = "1,4,16,64"
BENCH_IMAGES: Final = Range(low=1, high=100_000, whole=True)
SIDE: Final = Range(low=1, high=16_384, whole=True)
REPEATS: Final = Range(low=1, high=MILLION, whole=True)
PIXELS: Final = Range(low=1, high=2**30, whole=True)  # of all images; 3 GiB


@examples(
    "ddpo rewards bench compressibility",
    "ddpo rewards bench sharpness --per-round 16 --size 256",
)
@renamed({"--images": "--per-round"})
def bench_command(
    name: RewardName,
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="IMAGES", help="Images and folders to score; default: generated images."
        ),
    ] = None,
    images: Annotated[
        int,
        number_option(BENCH_IMAGES, "Number of images in a round.", "--per-round", panel=INPUT),
    ] = 64,
    size: Annotated[
        int, number_option(SIDE, "Width and height of the images, in pixels.", panel=INPUT)
    ] = 512,
    batch_sizes: Annotated[
        str,
        option(
            "Numbers of images per call, separated by commas.", metavar="N,N,…", panel=EXECUTION
        ),
    ] = BATCH_SIZES,
    device: Device = AUTO,
    repeats: Annotated[
        int,
        number_option(REPEATS, "Number of rounds, of which the median counts.", panel=EXECUTION),
    ] = 5,
    as_json: AsJson = False,
) -> None:
    """Print a reward's images per second and peak memory by batch size.

    The table also gives the share of the time that is spent outside the reward itself.
    """
    sizes = _sizes(batch_sizes, images)
    PIXELS.checked("--per-round × --size × --size", images * size**2)
    check_reward(name)
    check_device_name(device)
    check_places(files or [])
    from ddpo.inputs.image_files import find_images
    from ddpo.rewards.zoo import resolve

    found = resolve(name)
    check_fetched([found])
    paths = find_images(files or [])
    from ddpo.devices import resolve_device
    from ddpo.rewards.tools.bench import bench, bench_images, fitted_images, make_on

    device = resolve_device(device)
    status = f"scoring {images} images, {repeats} times with each batch size"
    with note_console().status(status):
        reward = make_on(found, device)
        array = fitted_images(paths, images, size) if paths else bench_images(images, size)
        records = list(bench(reward, array, sizes, device, repeats))
    if as_json:
        print_json([record.to_dict() for record in records])
        return
    console = new_console()
    console.print(_table(records))
    source = f"{len(paths)} files" if paths else "generated"
    console.print(
        f"{found.card.id} on {device}: {images} images of {size}×{size} ({source}), "
        f"{repeats} rounds",
        soft_wrap=True,
    )
    console.print("outside: share of the time in which no call of the reward was running")
    console.print(found.signature, soft_wrap=True, markup=False)


def _sizes(text: str, images: int) -> list[int]:
    """The batch sizes; of the default ones, those up to the number of images.

    Raises:
        ConfigError: One is no whole number, below 1 or above the number of images.
    """
    try:
        sizes = [int(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(
            f"--batch-sizes must be whole numbers separated by commas, got {text!r}"
        ) from None
    if text == BATCH_SIZES:
        return [size for size in sizes if size <= images]
    if wrong := [size for size in sizes if not 1 <= size <= images]:
        raise ConfigError(f"batch size {wrong[0]} must be from 1 to the number of images, {images}")
    return sizes


def _table(records: list[BenchRecord]) -> Table:
    table = simple_table()
    names = ["batch size", "images/s", "lowest … highest", "ms/image", "outside", "peak memory"]
    if any(record.peak_gpu_mb is not None for record in records):
        names.append("GPU")
    add_number_columns(table, names)
    for record in records:
        cells = [
            f"{record.batch_size}",
            f"{record.rate:,.1f}",
            f"{record.rate_low:,.1f} … {record.rate_high:,.1f}",
            f"{1000 / record.rate:.3g}",
            f"{100 * record.outside:.1f} %",
            f"{record.peak_memory_mb:,.0f} MB",
        ]
        if record.peak_gpu_mb is not None:
            cells.append(f"{record.peak_gpu_mb:,.0f} MB")
        table.add_row(*cells)
    return table
