"""`ddpo export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ddpo.cli.options import Trust


def export_command(
    checkpoint: Annotated[
        Path,
        typer.Argument(help="Run folder (its last checkpoint), RUN/best, or checkpoint folder."),
    ],
    to: Annotated[Path, typer.Option(help="Folder to write; must not exist or be empty.")],
    merge: Annotated[
        bool,
        typer.Option("--merge", help="For LoRA: a whole pipeline with the adapters merged in."),
    ] = False,
    model: Annotated[
        str | None, typer.Option(help="New place of the base model, if it was moved.")
    ] = None,
    push_to_hub: Annotated[
        str | None,
        typer.Option(help="Repository of the Hugging Face Hub to upload to, owner/name."),
    ] = None,
    trust: Trust = None,
) -> None:
    """Write a checkpoint that plain diffusers loads, with a model card."""
    from ddpo.policies.checkpoints.folder import find_checkpoint

    # A mistake is reported before libraries are loaded.
    find_checkpoint(checkpoint, model, trust or ())
    from ddpo.cli.console import echo, quiet_libraries

    quiet_libraries()
    from ddpo.trainer.run.export import export
    from ddpo.trainer.run.export import push_to_hub as push

    info = export(checkpoint, to, merge, model, trust or ())
    loader = f'pipeline.load_lora_weights("{to}")'
    if merge or info.kind == "full":
        loader = f'DiffusionPipeline.from_pretrained("{to}")'
    echo(f"{info.kind} checkpoint of {info.model}, iteration {info.iteration}, in {to}")
    echo(f"Model card: {to / 'README.md'}")
    echo(f"Load it with: {loader}")
    if push_to_hub is not None:
        echo(f"Uploaded: {push(to, push_to_hub)}")
