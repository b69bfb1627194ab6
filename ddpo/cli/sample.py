"""`ddpo sample`."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from ddpo.cli.device import AUTO, RunDevice
from ddpo.errors import ConfigError, RunExistsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image

    from ddpo.policies.checkpoints.folder import CheckpointInfo
    from ddpo.policies.policy import Policy
    from ddpo.policies.sampler import SampleKey, SamplerSettings
    from ddpo.types import Prompt

SAMPLED: Final = ("steps", "guidance", "eta")
BATCH: Final = 32  # images per call of the denoiser
MOST_IN_SHEET: Final = 512  # images of the contact sheet


def sample_command(
    prompts: Annotated[list[str], typer.Argument(help="Texts to draw; or --prompts FILE.")] = [],  # noqa: B006  # typer copies it
    file: Annotated[
        str | None,
        typer.Option(
            "--prompts", help="A .txt file with one prompt a line, a table, or a built-in list."
        ),
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            help="A checkpoint or run folder of `ddpo train`; or another trainer's, with --model."
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The base model; default: the checkpoint's, else 'emoji'.")
    ] = None,
    out: Annotated[
        Path, typer.Option(help="Folder for the images; must not exist or be empty.")
    ] = Path("samples"),
    count: Annotated[int, typer.Option(help="Images per prompt.", min=1)] = 4,
    steps: Annotated[
        int | None,
        typer.Option(help="Denoising steps; default: the run's, else the model family's.", min=1),
    ] = None,
    guidance: Annotated[
        float | None,
        typer.Option(
            help="Classifier-free guidance, 1: none; default: the run's, else the model family's.",
            min=1,
        ),
    ] = None,
    eta: Annotated[
        float | None,
        typer.Option(
            help="Stochasticity, 0 … 1; default: the run's, else the model family's.", min=0, max=1
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(help="The same seed gives the same noise for every checkpoint.")
    ] = 0,
    device: RunDevice = None,
) -> None:
    """Draw images with a model or a checkpoint.

    Writes the images, metadata.jsonl with their prompts and settings, and sheet.png with all of them. A text that is named twice is drawn
    twice as often. A checkpoint of a run is drawn with the run's own settings, as `ddpo eval` does.
    """
    from ddpo.policies.checkpoints.folder import find_checkpoint
    from ddpo.prompts import load_prompts
    from ddpo.types import Prompt

    if bool(prompts) == bool(file):
        raise ConfigError("give either texts or --prompts FILE")
    chosen = load_prompts(file).prompts if file else tuple(Prompt(text) for text in prompts)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunExistsError(f"{out} is not an empty folder: choose another --out")
    info = find_checkpoint(checkpoint, model) if checkpoint else None
    base = info.model if info else model or "emoji"
    from ddpo.cli.quiet import quiet_libraries

    quiet_libraries()
    _note_prompts(base, [prompt.text for prompt in chosen])
    from ddpo.devices import resolve_device
    from ddpo.policies import load_policy
    from ddpo.policies.family import default_dtype, sampler_defaults
    from ddpo.policies.sampler import SamplerSettings

    config = _run_config(info)
    named = {"steps": steps, "guidance": guidance, "eta": eta}
    told = {name: value for name, value in named.items() if value is not None}
    of_run = {
        name: value for name, value in dict(config.get("sample", {})).items() if name in SAMPLED
    }
    keys = _keys(chosen, count)
    settings = SamplerSettings(
        **{**sampler_defaults(base), **of_run, **told}, batch=min(BATCH, len(keys))
    )
    place = resolve_device(device or str(config.get("device", AUTO)))
    dtype = str(config.get("dtype") or default_dtype(base, place))
    policy = load_policy(base, info, device=place, dtype=dtype)
    facts = {
        "model": base,
        "checkpoint": str(info.folder) if info else None,
        **{name: getattr(settings, name) for name in SAMPLED},
    }
    _draw(policy, keys, settings, seed, out, facts, columns=count if count > 1 else 8)
    typer.echo(f"{len(keys)} images in {out}; all of them in {out / 'sheet.png'}")


def _note_prompts(model: str, texts: Sequence[str]) -> None:
    """Says which words the model was never taught, and which prompts it does not read to their end.

    Raises:
        PromptError: two prompts are one to the model.
    """
    from ddpo.policies.emoji.vocabulary import unknown_words_line
    from ddpo.policies.prompt_reader import check_prompts, find_reader

    reader = find_reader(model)
    cut = check_prompts(reader, texts) if reader else None
    for line in (unknown_words_line(model, texts), cut):
        if line:
            typer.echo(f"note: {line}", err=True)


def _run_config(info: CheckpointInfo | None) -> dict[str, Any]:
    """The settings of the run that a checkpoint belongs to; empty if it belongs to none."""
    from ddpo.eval.inputs.runs import read_run

    return dict(read_run(info.run).config) if info is not None else {}


def _keys(prompts: Sequence[Prompt], count: int) -> list[SampleKey]:
    """The images to draw: `count` for each prompt, with indices that go on where a prompt is named again."""
    from ddpo.policies.sampler import SampleKey

    drawn: Counter[str] = Counter()
    keys: list[SampleKey] = []
    for prompt in prompts:
        keys += [SampleKey(prompt, drawn[prompt.id] + index) for index in range(count)]
        drawn[prompt.id] += count
    return keys


def _draw(
    policy: Policy,
    keys: Sequence[SampleKey],
    settings: SamplerSettings,
    seed: int,
    out: Path,
    facts: dict[str, Any],
    columns: int,
) -> None:
    """Writes every image as soon as it is there, its line of metadata.jsonl with it, and the contact sheet at the end."""
    from rich.progress import track

    from ddpo.images import contact_sheet, save_png, to_pil
    from ddpo.io.atomic import storing
    from ddpo.io.sync import make_folder, sync_descriptor
    from ddpo.policies.sampler import sample_images

    waiting = iter(keys)
    shown: list[Image.Image] = []
    batches = -(-len(keys) // settings.batch)
    with storing(out):
        make_folder(out)
        with (out / "metadata.jsonl").open("w", encoding="utf-8") as table:
            for batch in track(
                sample_images(policy, keys, settings, seed), total=batches, description="sampling"
            ):
                for image in to_pil(batch.pixels):
                    key = next(waiting)
                    name = f"{key.prompt.id}-{key.index}.png"
                    save_png(image, out / name)
                    row = {
                        "file_name": name,
                        "prompt": key.prompt.text,
                        "index": key.index,
                        "seed": seed,
                        "settings": facts,
                    }
                    if key.prompt.metadata:
                        row["metadata"] = dict(key.prompt.metadata)
                    table.write(json.dumps(row, ensure_ascii=False) + "\n")
                    shown += [image] if len(shown) < MOST_IN_SHEET else []
                table.flush()
            sync_descriptor(table.fileno())
        save_png(contact_sheet(shown, columns=columns), out / "sheet.png")
