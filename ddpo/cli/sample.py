"""`ddpo sample`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ddpo.errors import ConfigError, RunExistsError


def sample_command(
    prompts: Annotated[list[str], typer.Argument(help="Texts to draw; or --prompts FILE.")] = [],  # noqa: B006  # typer copies it
    file: Annotated[str | None, typer.Option("--prompts", help="A file with one prompt a line, or a built-in list.")] = None,
    checkpoint: Annotated[
        str | None, typer.Option(help="A checkpoint or run folder of `ddpo train`; or another trainer's, with --model.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="The base model; default: the checkpoint's, else 'emoji'.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the pictures; must not exist or be empty.")] = Path("samples"),
    count: Annotated[int, typer.Option(help="Pictures per prompt.", min=1)] = 4,
    steps: Annotated[int, typer.Option(help="Denoising steps.", min=1)] = 20,
    guidance: Annotated[float, typer.Option(help="Classifier-free guidance; 1: none.", min=1)] = 2.5,
    eta: Annotated[float, typer.Option(help="Stochasticity, 0 … 1.", min=0, max=1)] = 1.0,
    seed: Annotated[int, typer.Option(help="The same seed gives the same noise for every checkpoint.")] = 0,
    device: Annotated[str, typer.Option(help="A torch device.")] = "cpu",
) -> None:
    """Draw pictures with a model or a checkpoint."""
    from ddpo.policies.checkpoint import find_checkpoint
    from ddpo.prompts import load_prompts
    from ddpo.types import Prompt

    if bool(prompts) == bool(file):
        raise ConfigError("give either texts or --prompts FILE")
    chosen = load_prompts(file).prompts if file else tuple(Prompt(text) for text in prompts)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunExistsError(f"{out} is not an empty folder: choose another --out")
    info = find_checkpoint(checkpoint, model) if checkpoint else None
    from ddpo.cli.quiet import quiet_libraries

    quiet_libraries()
    from rich.progress import track

    from ddpo.images import contact_sheet, save_png, to_pil
    from ddpo.policies import load_policy
    from ddpo.policies.prompt_reader import check_prompts, find_reader
    from ddpo.policies.sample import SampleKey, SamplerSettings, sample_images

    word = info.model if info else model or "emoji"
    reader = find_reader(word)
    cut = check_prompts(reader, [prompt.text for prompt in chosen]) if reader else None
    if cut:
        typer.echo(f"note: {cut}", err=True)
    policy = load_policy(word, info, device=device)
    keys = [SampleKey(prompt, index) for prompt in chosen for index in range(count)]
    settings = SamplerSettings(steps=steps, guidance=guidance, eta=eta, batch=min(32, len(keys)))
    pictures = []
    batches = -(-len(keys) // settings.batch)
    for batch in track(sample_images(policy, keys, settings, seed), total=batches, description="sampling"):
        pictures += to_pil(batch.pixels)
    for key, picture in zip(keys, pictures, strict=True):
        save_png(picture, out / f"{key.prompt.id}-{key.index}.png")
        (out / f"{key.prompt.id}-{key.index}.txt").write_text(key.prompt.text + "\n", encoding="utf-8")
    save_png(contact_sheet(pictures, columns=count if count > 1 else 8), out / "sheet.png")
    typer.echo(f"{len(pictures)} pictures in {out}; all of them in {out / 'sheet.png'}")
