"""`ddpo sample`."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from ddpo.cli.console import echo, quiet_libraries
from ddpo.cli.options import AUTO, RunDevice
from ddpo.errors import ConfigError, RunExistsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image

    from ddpo.policies.checkpoints.folder import CheckpointInfo
    from ddpo.policies.policy import Policy
    from ddpo.policies.sampler import SampleKey, SamplerSettings
    from ddpo.types import Prompt

SETTINGS: Final = ("steps", "guidance", "eta")
BATCH: Final = 32  # images per call of the denoiser
MOST_IN_SHEET: Final = 512  # images of the contact sheet
SHEET_COLUMNS: Final = 8  # with one image per prompt

Texts = Annotated[list[str], typer.Argument(help="Prompts to sample; or --prompts FILE.")]
Count = Annotated[int, typer.Option(help="Number of images per prompt.", min=1)]
Checkpoint = Annotated[
    str | None,
    typer.Option(
        help="Checkpoint or run folder of `ddpo train`; or another trainer's, with --model."
    ),
]
Steps = Annotated[
    int | None,
    typer.Option(
        help="Number of denoising steps; default: the run's, else the model family's.", min=1
    ),
]
Guidance = Annotated[
    float | None,
    typer.Option(
        help="Scale of classifier-free guidance, 1 for none; "
        "default: the run's, else the model family's.",
        min=1,
    ),
]
Eta = Annotated[
    float | None,
    typer.Option(
        help="Stochasticity, 0 … 1; default: the run's, else the model family's.", min=0, max=1
    ),
]


def sample_command(
    prompts: Texts = [],  # noqa: B006  # typer copies it
    file: Annotated[
        str | None,
        typer.Option(
            "--prompts", help="A .txt file with one prompt a line, a table, or a built-in list."
        ),
    ] = None,
    checkpoint: Checkpoint = None,
    model: Annotated[
        str | None, typer.Option(help="Base model; default: the checkpoint's, else 'emoji'.")
    ] = None,
    out: Annotated[
        Path, typer.Option(help="Folder for the images; must not exist or be empty.")
    ] = Path("samples"),
    count: Count = 4,
    steps: Steps = None,
    guidance: Guidance = None,
    eta: Eta = None,
    seed: Annotated[
        int, typer.Option(help="Seed of the noise, which is the same for every checkpoint.")
    ] = 0,
    device: RunDevice = None,
) -> None:
    """Write images of a model or a checkpoint, with a contact sheet.

    The folder holds the images, metadata.jsonl with their prompts and settings, and sheet.png. A
    prompt that is given twice gets twice as many images. A checkpoint of a run is sampled with the
    run's own settings, as in `ddpo eval`.
    """
    from ddpo.policies.checkpoints.folder import find_checkpoint

    chosen = _prompts(prompts, file)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunExistsError(f"{out} is not an empty folder: choose another --out")
    info = find_checkpoint(checkpoint, model) if checkpoint else None
    base = info.model if info else model or "emoji"
    quiet_libraries()
    _note_prompts(base, [prompt.text for prompt in chosen])
    from ddpo.devices import resolve_device
    from ddpo.policies import load_policy
    from ddpo.policies.family import default_dtype

    config = _run_config(info)
    keys = _keys(chosen, count)
    given = {"steps": steps, "guidance": guidance, "eta": eta}
    settings = _settings(base, config, given, len(keys))
    place = resolve_device(device or str(config.get("device", AUTO)))
    dtype = str(config.get("dtype") or default_dtype(base, place))
    policy = load_policy(base, info, device=place, dtype=dtype)
    facts = {
        "model": base,
        "checkpoint": str(info.folder) if info else None,
        **{name: getattr(settings, name) for name in SETTINGS},
    }
    columns = count if count > 1 else SHEET_COLUMNS
    _write_images(policy, keys, settings, seed, out, facts, columns)
    echo(f"{len(keys)} images in {out}; all of them in {out / 'sheet.png'}")


def _prompts(texts: list[str], file: str | None) -> tuple[Prompt, ...]:
    """The prompts of the command line or of --prompts.

    Raises:
        ConfigError: Both are given, or neither.
    """
    from ddpo.prompts import load_prompts
    from ddpo.types import Prompt

    if bool(texts) == bool(file):
        raise ConfigError("give either texts or --prompts FILE")
    return load_prompts(file).prompts if file else tuple(Prompt(text) for text in texts)


def _settings(
    model: str, config: dict[str, Any], given: dict[str, Any], images: int
) -> SamplerSettings:
    """The given settings; for those that are None the run's, else the model family's."""
    from ddpo.policies.family import sampler_defaults
    from ddpo.policies.sampler import SamplerSettings

    values = dict(sampler_defaults(model))
    run = dict(config.get("sample", {}))
    values |= {name: value for name, value in run.items() if name in SETTINGS}
    values |= {name: value for name, value in given.items() if value is not None}
    return SamplerSettings(**values | {"batch": min(BATCH, images)})


def _note_prompts(model: str, texts: Sequence[str]) -> None:
    """Notes words that the model was never taught, and prompts that it does not read to the end.

    Raises:
        PromptError: Two prompts are the same to the model.
    """
    from ddpo.policies.emoji.vocabulary import unknown_words_line
    from ddpo.policies.prompt_reader import check_prompts, find_reader

    reader = find_reader(model)
    cut = check_prompts(reader, texts) if reader else None
    for line in (unknown_words_line(model, texts), cut):
        if line:
            echo(f"note: {line}", err=True)


def _run_config(info: CheckpointInfo | None) -> dict[str, Any]:
    """The settings of the run that a checkpoint belongs to; empty if it belongs to none."""
    from ddpo.eval.inputs.runs import read_run

    return dict(read_run(info.run).config) if info is not None else {}


def _keys(prompts: Sequence[Prompt], count: int) -> list[SampleKey]:
    """Keys of `count` images for each prompt; the indices of a repeated prompt continue."""
    from ddpo.policies.sampler import SampleKey

    planned: Counter[str] = Counter()
    keys: list[SampleKey] = []
    for prompt in prompts:
        keys += [SampleKey(prompt, planned[prompt.id] + index) for index in range(count)]
        planned[prompt.id] += count
    return keys


def _write_images(
    policy: Policy,
    keys: Sequence[SampleKey],
    settings: SamplerSettings,
    seed: int,
    out: Path,
    facts: dict[str, Any],
    columns: int,
) -> None:
    """Writes each image and its line of metadata.jsonl once sampled; the contact sheet at the end.

    Raises:
        StorageFailure: A file cannot be written.
    """
    from rich.progress import track

    from ddpo.images import contact_sheet, save_png, to_pil
    from ddpo.io.atomic import storing
    from ddpo.io.sync import make_folder, sync_descriptor
    from ddpo.policies.sampler import sample_images

    waiting = iter(keys)
    shown: list[Image.Image] = []
    total = -(-len(keys) // settings.batch)
    with storing(out):
        make_folder(out)
        with (out / "metadata.jsonl").open("w", encoding="utf-8") as table:
            batches = sample_images(policy, keys, settings, seed)
            for batch in track(batches, total=total, description="sampling"):
                for image in to_pil(batch.pixels):
                    row = _metadata_row(next(waiting), seed, facts)
                    save_png(image, out / row["file_name"])
                    table.write(json.dumps(row, ensure_ascii=False) + "\n")
                    if len(shown) < MOST_IN_SHEET:
                        shown.append(image)
                table.flush()
            sync_descriptor(table.fileno())
        save_png(contact_sheet(shown, columns=columns), out / "sheet.png")


def _metadata_row(key: SampleKey, seed: int, facts: dict[str, Any]) -> dict[str, Any]:
    row = {
        "file_name": f"{key.prompt.id}-{key.index}.png",
        "prompt": key.prompt.text,
        "index": key.index,
        "seed": seed,
        "settings": facts,
    }
    if key.prompt.metadata:
        row["metadata"] = dict(key.prompt.metadata)
    return row
