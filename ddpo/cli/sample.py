"""`ddpo sample`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from ddpo import text
from ddpo.cli.commands import examples, renamed
from ddpo.cli.completion import complete_model, complete_prompts
from ddpo.cli.console import echo, print_json, quiet_libraries
from ddpo.cli.early import check_checkpoint, check_device_name, check_model
from ddpo.cli.options import (
    INPUT,
    MODEL,
    AsJson,
    ImageSize,
    RunDevice,
    Trust,
    limit_option,
    number_option,
    option,
    out_option,
)
from ddpo.cli.sample_prompts import given_prompts, note_prompts
from ddpo.ranges import ETA, GUIDANCE, IMAGES, SEED, STEPS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ddpo.policies.sampler import SampleKey
    from ddpo.types import Prompt

SHEET_COLUMNS: Final = 8  # with one image per prompt

Texts = Annotated[
    list[str], typer.Argument(metavar="PROMPT", help="Prompts to sample; or --prompts FILE.")
]
PromptList = Annotated[
    str | None,
    option(
        "A .txt file with one prompt a line, a table, or a built-in list.",
        "--prompts",
        metavar="PROMPTS",
        panel=INPUT,
        complete=complete_prompts,
    ),
]
Limit = Annotated[int | None, limit_option("Number of first prompts.")]
PerPrompt = Annotated[
    int, number_option(IMAGES, "Number of images per prompt.", "--per-prompt", panel=MODEL)
]
Checkpoint = Annotated[
    str | None,
    option(
        "Checkpoint or run folder of `ddpo train`; or another trainer's, with --model.",
        metavar="RUN",
        panel=MODEL,
    ),
]
Model = Annotated[
    str | None,
    option(
        "Base model; default: the checkpoint's, else 'emoji'.",
        metavar="MODEL",
        panel=MODEL,
        complete=complete_model,
    ),
]
Steps = Annotated[
    int | None,
    number_option(
        STEPS,
        "Number of denoising steps; default: the run's, else the model family's.",
        panel=MODEL,
    ),
]
Guidance = Annotated[
    float | None,
    number_option(
        GUIDANCE,
        "Scale of classifier-free guidance, 1 for none; "
        "default: the run's, else the model family's.",
        panel=MODEL,
    ),
]
Eta = Annotated[
    float | None,
    number_option(ETA, "Stochasticity; default: the run's, else the model family's.", panel=MODEL),
]
Transition = Annotated[
    str | None,
    option(
        "Kind of the denoising steps: ddim for U-Nets; flow_sde, dance_sde, cps or ode for flow "
        "models. Default: the run's, else the model family's.",
        metavar="WORD",
        panel=MODEL,
    ),
]
Grid = Annotated[
    str | None,
    option(
        "Noise levels of a flow model: diffusers or linspace; default: the run's, else the model "
        "family's.",
        metavar="WORD",
        panel=MODEL,
    ),
]
Seed = Annotated[
    int,
    number_option(SEED, "Seed of the noise, which is the same for every checkpoint.", panel=MODEL),
]
Out = Annotated[
    Path,
    out_option(
        "Folder for the images: new, empty, or of this command when it was stopped.", "FOLDER"
    ),
]


@examples(
    'ddpo sample "a cat" "a red car" --per-prompt 2',
    "ddpo sample --prompts animals --limit 5 -o animals",
    'ddpo sample "a cat" --checkpoint runs/demo -o cats',
)
@renamed({"--count": "--per-prompt"})
def sample_command(
    prompts: Texts = [],  # noqa: B006  # typer copies it
    file: PromptList = None,
    limit: Limit = None,
    checkpoint: Checkpoint = None,
    model: Model = None,
    out: Out = Path("samples"),
    count: PerPrompt = 4,
    steps: Steps = None,
    guidance: Guidance = None,
    eta: Eta = None,
    transition: Transition = None,
    grid: Grid = None,
    size: ImageSize = None,
    seed: Seed = 0,
    device: RunDevice = None,
    trust: Trust = None,
    as_json: AsJson = False,
) -> None:
    """Write images of a model or a checkpoint, with a contact sheet.

    The folder holds the images, metadata.jsonl with their prompts and settings, and sheet.png. A
    prompt that is given twice gets twice as many images. A checkpoint of a run is sampled with the
    run's own settings, as in `ddpo eval`. A stopped sampling resumes when its command is repeated.
    """
    from ddpo.policies.checkpoints.folder import find_checkpoint

    chosen = given_prompts(prompts, file)[:limit]
    check_device_name(device)
    info = find_checkpoint(checkpoint, model, trust or ()) if checkpoint else None
    base = info.model if info else model or "emoji"
    if info is None:
        check_model(base)
    else:
        check_checkpoint(info)
    _check_out(out)
    keys = _keys(chosen, count)
    quiet_libraries()
    note_prompts(base, [prompt.text for prompt in chosen])
    from ddpo.cli.sampling_plan import plan_sampling

    given = {
        "steps": steps,
        "guidance": guidance,
        "eta": eta,
        "transition": transition,
        "grid": grid,
        "size": size,
    }
    plan = plan_sampling(base, info, keys, given, seed, device)
    sheet = plan.write(out, columns=count if count > 1 else SHEET_COLUMNS)
    if as_json:
        print_json({"out": str(out), "images": len(keys), "sheet": str(sheet), **plan.facts})
        return
    echo(f"{text.count(len(keys), 'image')} in {out}; all of them in {sheet}")


def _check_out(out: Path) -> None:
    """Checks the folder for the images before time is spent on them.

    Raises:
        RunExistsError: It holds something else.
        ConfigError: It cannot be written.
    """
    from ddpo.io.atomic import check_folder_writable
    from ddpo.policies.free_folder import check_free

    check_free(out)
    check_folder_writable(out)


def _keys(prompts: Sequence[Prompt], count: int) -> list[SampleKey]:
    """Keys of `count` images for each prompt; the indices of a repeated prompt continue.

    Raises:
        ConfigError: There are too many images.
    """
    from ddpo.policies.sampler import SampleKey

    IMAGES.checked(f"--per-prompt times the {len(prompts)} prompts", len(prompts) * count)
    planned: Counter[str] = Counter()
    keys: list[SampleKey] = []
    for prompt in prompts:
        keys += [SampleKey(prompt, planned[prompt.id] + index) for index in range(count)]
        planned[prompt.id] += count
    return keys
