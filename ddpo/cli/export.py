"""`ddpo export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ddpo.cli.commands import examples, renamed
from ddpo.cli.completion import complete_model
from ddpo.cli.options import MODEL, OUTPUT, AsJson, Trust, option, out_option


@examples(
    "ddpo export runs/demo --out my-lora",
    "ddpo export runs/demo/best -o my-model --merge",
    "ddpo export runs/demo -o my-lora --lora-names kohya",
)
@renamed({"--to": "--out"})
def export_command(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            metavar="RUN", help="Run folder (its last checkpoint), RUN/best, or checkpoint folder."
        ),
    ],
    to: Annotated[Path, out_option("Folder to write; must not exist or be empty.", "FOLDER")],
    merge: Annotated[
        bool,
        option("For LoRA: a whole pipeline with the adapters merged in.", "--merge", panel=OUTPUT),
    ] = False,
    lora_names: Annotated[
        Literal["diffusers", "kohya"],
        option("For LoRA: names of its tensors; kohya: for kohya-ss and ComfyUI.", panel=OUTPUT),
    ] = "diffusers",
    model: Annotated[
        str | None,
        option(
            "New place of the base model, if it was moved.",
            metavar="MODEL",
            panel=MODEL,
            complete=complete_model,
        ),
    ] = None,
    push_to_hub: Annotated[
        str | None,
        option(
            "Repository of the Hugging Face Hub to upload to.", metavar="OWNER/NAME", panel=OUTPUT
        ),
    ] = None,
    trust: Trust = None,
    as_json: AsJson = False,
) -> None:
    """Write a checkpoint that plain diffusers loads, with a model card."""
    from ddpo.cli.early import check_checkpoint
    from ddpo.io.new_folder import check_new_folder
    from ddpo.policies.checkpoints.folder import find_checkpoint

    # A mistake is reported before libraries are loaded.
    info = find_checkpoint(checkpoint, model, trust or ())
    check_new_folder(to)
    if merge or info.kind == "full":
        check_checkpoint(info)
    from ddpo.cli.console import echo, print_json, quiet_libraries

    quiet_libraries()
    from ddpo.trainer.run.export import export, reads_kohya
    from ddpo.trainer.run.export import push_to_hub as push
    from ddpo.trainer.run.model_card import pipeline_code

    info = export(checkpoint, to, merge, model, trust or (), lora_names)
    uploaded = push(to, push_to_hub) if push_to_hub is not None else None
    loader = f'pipeline.load_lora_weights("{to}")'
    if lora_names == "kohya" and not reads_kohya(info.model):
        loader = "kohya-ss or ComfyUI; diffusers does not read these names for this model"
    if merge or info.kind == "full":
        loader = pipeline_code(str(to), info.model)
    if as_json:
        facts = {"kind": info.kind, "model": info.model, "iteration": info.iteration}
        print_json({"folder": str(to), **facts, "load": loader, "uploaded": uploaded})
        return
    echo(f"{info.kind} checkpoint of {info.model}, iteration {info.iteration}, in {to}")
    echo(f"Model card: {to / 'README.md'}")
    echo(f"Load it with: {loader}")
    if uploaded is not None:
        echo(f"Uploaded: {uploaded}")
