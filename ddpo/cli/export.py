"""`ddpo export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export_command(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            help="A run folder (its last checkpoint), RUN/best, or a checkpoint folder."
        ),
    ],
    to: Annotated[Path, typer.Option(help="The folder to write; must not exist or be empty.")],
    merge: Annotated[
        bool,
        typer.Option(
            "--merge", help="LoRA: write a whole pipeline with the adapters added to its weights."
        ),
    ] = False,
    model: Annotated[
        str | None, typer.Option(help="The base model, if it was moved since.")
    ] = None,
    push_to_hub: Annotated[
        str | None,
        typer.Option(help="Upload it to this repository of the Hugging Face Hub, owner/name."),
    ] = None,
) -> None:
    """Write a checkpoint for plain diffusers, with a model card."""
    from ddpo.policies.checkpoints.folder import find_checkpoint

    find_checkpoint(checkpoint, model)  # a mistake is reported before libraries are loaded
    from ddpo.cli.quiet import quiet_libraries

    quiet_libraries()
    from ddpo.trainer.run.export import export
    from ddpo.trainer.run.export import push_to_hub as push

    info = export(checkpoint, to, merge, model)
    whole = merge or info.kind == "full"
    call = (
        f'DiffusionPipeline.from_pretrained("{to}")'
        if whole
        else f'pipeline.load_lora_weights("{to}")'
    )
    typer.echo(
        f"{info.kind} checkpoint of {info.model}, iteration {info.iteration}, in {to}; its model card is {to / 'README.md'}"
    )
    typer.echo(f"Load it with: {call}")
    if push_to_hub is not None:
        typer.echo(f"Uploaded: {push(to, push_to_hub)}")
