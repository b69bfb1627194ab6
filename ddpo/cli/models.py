"""`ddpo models`: the list of models, and the checks of one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final

import typer

from ddpo.cli.commands import Commands, Group, examples
from ddpo.cli.completion import complete_model
from ddpo.cli.console import escape, new_console, print_json, quiet_libraries, simple_table
from ddpo.cli.early import check_device_name, check_model
from ddpo.cli.options import AUTO, EXECUTION, INPUT, AsJson, Device, number_option, option
from ddpo.ranges import SECONDS

EACH_S: Final = 1800.0
"""Seconds for a check: six loads of a model of six billion parameters take less."""

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
    only: Annotated[
        list[str] | None,
        option("Name of the only check to run; repeatable.", metavar="CHECK", panel=INPUT),
    ] = None,
    device: Device = AUTO,
    timeout: Annotated[
        float | None,
        number_option(
            SECONDS,
            "Time limit for all checks, in seconds; those left are failures.",
            panel=EXECUTION,
        ),
    ] = None,
    check_timeout: Annotated[
        float,
        number_option(
            SECONDS,
            "Time limit for each check, in seconds; one that exceeds it fails.",
            "--check-timeout",
            panel=EXECUTION,
        ),
    ] = EACH_S,
    as_json: AsJson = False,
) -> None:
    """Report which promises a model keeps, such as exact ratios and right gradients.

    Exit code 1 if a check fails.
    """
    from ddpo.model_check.names import check_names

    check_names(only or ())
    check_device_name(device)
    check_model(model)  # a model that does not exist is reported before torch is imported
    from ddpo.cli.rewards.check import print_conformance, say_result
    from ddpo.model_check import iter_results

    quiet_libraries()
    results = []
    for result in iter_results(model, only or None, device, timeout, check_timeout):
        results.append(result)
        say_result(result)
    print_conformance(model, results, as_json)
