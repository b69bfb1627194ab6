"""`ddpo models`: the list of models, and the checks of one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final

import typer

from ddpo.cli.check_options import EACH_S, CheckTimeout, OnlyChecks, Timeout
from ddpo.cli.commands import Commands, Group, examples
from ddpo.cli.completion import complete_model
from ddpo.cli.conformance import report_conformance
from ddpo.cli.console import escape, new_console, print_json, quiet_libraries, simple_table
from ddpo.cli.early import check_device_name, check_model
from ddpo.cli.options import AUTO, AsJson, Device

FOR: Final[Mapping[str, str]] = {
    "emoji": "single things, a U-Net: rewards of pixels, first runs",
    "emoji-flow": "scenes with counts and places, a flow model: emoji_geneval, GRPO and its kin",
    "emoji-scenes": "scenes with activities, counts and places, a U-Net: prompt alignment",
    "StableDiffusionPipeline": "Stable Diffusion 1.x and 2.x",
    "StableDiffusionXLPipeline": "Stable Diffusion XL",
    "StableDiffusion3Pipeline": "Stable Diffusion 3 and 3.5",
    "FluxPipeline": "FLUX.1",
    "Flux2KleinPipeline": "FLUX.2 klein",
    "ZImagePipeline": "Z-Image",
}
"""Model or pipeline → the purpose of an embedded model, or the models of a pipeline, in words."""

app = Commands(
    cls=Group,
    name="models",
    help="Models: their list, and checks of one of your own.",
    no_args_is_help=True,
)


@app.command("list")
@examples("ddpo models list", "ddpo models list --json")
def list_command(as_json: AsJson = False) -> None:
    """List the models with names, and the pipelines whose folders and hub ids are models too."""
    from ddpo.policies import policies
    from ddpo.policies.pipelines import PIPELINES

    rows = [
        {"model": name, "kind": "name", "from": policies.origin(name)} for name in policies.names()
    ]
    rows += [{"model": name, "kind": "pipeline", "from": "diffusers"} for name in PIPELINES]
    rows = [row | {"for": FOR.get(row["model"], "")} for row in rows]
    if as_json:
        print_json(rows)
        return
    table = simple_table()
    table.add_column("model", no_wrap=True, style="bold")
    table.add_column("kind", no_wrap=True)
    table.add_column("from", overflow="fold")
    table.add_column("for", overflow="fold")
    for row in rows:
        table.add_row(*(escape(value) for value in row.values()))
    new_console().print(table)


@app.command("check")
@examples("ddpo models check emoji", "ddpo models check ./my_model.py:Mine")
def check_command(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A name of the list, a folder, a hub id, ./file.py:Object or "
            "package.module:Object.",
            autocompletion=complete_model,
        ),
    ],
    only: OnlyChecks = None,
    device: Device = AUTO,
    timeout: Timeout = None,
    check_timeout: CheckTimeout = EACH_S,
    as_json: AsJson = False,
) -> None:
    """Report which promises a model keeps, such as exact ratios and right gradients.

    Exit code 1 if a check fails.
    """
    from ddpo.model_check.names import check_names

    check_names(only or ())
    check_device_name(device)
    check_model(model)  # a model that does not exist is reported before torch is imported
    from ddpo.model_check import iter_results

    quiet_libraries()
    results = iter_results(model, only or None, device, timeout, check_timeout)
    report_conformance(model, results, as_json)
