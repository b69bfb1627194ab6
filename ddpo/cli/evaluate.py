"""`ddpo eval` and `ddpo compare`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ddpo.cli.device import RunDevice
from ddpo.errors import ConfigError
from ddpo.launch import is_first_process
from ddpo.text import duration

if TYPE_CHECKING:
    from rich.progress import TaskID

    from ddpo.eval.inputs.models import ModelFacts
    from ddpo.eval.plan import Plan
    from ddpo.eval.runner import EvalProgress, Outcome

FAILED: int = 3
"""The exit status when a condition of --fail-if is true."""

Prompts = Annotated[
    list[str] | None,
    typer.Option(
        help="A .txt file with one prompt a line, a table, a built-in list, or NAME=FILE; repeatable. "
        "Default: the lists that suit the model."
    ),
]
Rewards = Annotated[
    list[str] | None,
    typer.Option(
        help="A reward to score with, or an expression such as 'aesthetic + compressibility:0.2'; repeatable, each one is "
        "reported by itself. Always there: the run's own."
    ),
]
HeldOut = Annotated[
    bool, typer.Option(help="Score with independent rewards and pixel statistics too.")
]
Leaks = Annotated[
    str, typer.Option(help="Held-out prompts that training gave away: 'report' or 'drop' them.")
]
Seeds = Annotated[int, typer.Option(help="Pictures per prompt, of every model.", min=1)]
Seed = Annotated[
    int | None, typer.Option(help="Of the noise; default: one that training does not use.")
]
Steps = Annotated[int | None, typer.Option(help="Denoising steps; default: the run's.", min=1)]
Guidance = Annotated[
    float | None, typer.Option(help="Classifier-free guidance, 1: none; default: the run's.", min=1)
]
Eta = Annotated[
    float | None, typer.Option(help="Stochasticity, 0 … 1; default: the run's.", min=0, max=1)
]
Out = Annotated[
    Path | None,
    typer.Option(
        help="Folder for the report; default: RUN/eval/iteration-…, or evaluations/NAMES."
    ),
]
Format = Annotated[
    str,
    typer.Option(
        "--format",
        help="What is printed: 'terminal', 'github' (Markdown for a job summary) or 'json'.",
    ),
]
FailIf = Annotated[
    list[str] | None,
    typer.Option(
        help="A condition such as 'unseen_animals.gain < 0' or 'reading >= strong'; if true, exit with 3. Repeatable."
    ),
]
Base = Annotated[
    str | None, typer.Option(help="The base model, for checkpoints of other trainers.")
]


def evaluate_command(
    checkpoint: Annotated[
        list[str] | None,
        typer.Option(
            help="A run folder (its last checkpoint), a checkpoint folder or a hub id; repeatable."
        ),
    ] = None,
    images: Annotated[
        list[str] | None,
        typer.Option(
            help="Images that something else drew: base=FOLDER, and NAME=FOLDER for each model; also tables and archives."
        ),
    ] = None,
    prompts: Prompts = None,
    reward: Rewards = None,
    held_out: HeldOut = True,
    leaks: Leaks = "report",
    seeds: Seeds = 4,
    seed: Seed = None,
    history: Annotated[
        int,
        typer.Option(help="Earlier checkpoints of each run, for the course of training.", min=0),
    ] = 6,
    history_seeds: Annotated[int, typer.Option(help="Pictures per prompt of those.", min=1)] = 2,
    best_of: Annotated[
        int | None,
        typer.Option(
            help="Best-of-n of the base model as a yardstick; default: as many as the run had queries per prompt; 0: none.",
            min=0,
        ),
    ] = None,
    trained_prompts: Annotated[
        str | None,
        typer.Option(help="The prompt list of the training, where the run does not tell."),
    ] = None,
    base: Base = None,
    steps: Steps = None,
    guidance: Guidance = None,
    eta: Eta = None,
    out: Out = None,
    device: RunDevice = None,
    form: Format = "terminal",
    fail_if: FailIf = None,
) -> None:
    """Compare checkpoints with their base model on seen and unseen prompts, and write a report.

    An interrupted evaluation resumes when the same command is given again.
    """
    _evaluate(
        form,
        fail_if or [],
        checkpoints=tuple(checkpoint or ()),
        images=tuple(images or ()),
        prompts=tuple(prompts or ()),
        rewards=tuple(reward or ()),
        held_out=held_out,
        leaks=leaks,
        seeds=seeds,
        seed=seed,
        history=history,
        history_seeds=history_seeds,
        best_of=best_of,
        trained_prompts=trained_prompts,
        base=base,
        steps=steps,
        guidance=guidance,
        eta=eta,
        out=out,
        device=device,
    )


def compare_command(
    checkpoints: Annotated[
        list[str],
        typer.Argument(
            help="Two or more runs, checkpoints or hub ids, of one base model.", metavar="RUN..."
        ),
    ],
    prompts: Prompts = None,
    reward: Rewards = None,
    held_out: HeldOut = True,
    leaks: Leaks = "report",
    seeds: Seeds = 4,
    seed: Seed = None,
    base: Base = None,
    out: Out = None,
    device: RunDevice = None,
    form: Format = "terminal",
    fail_if: FailIf = None,
) -> None:
    """Put runs side by side: the same prompts, noise and rewards for all; `ddpo eval` without the course of training."""
    if len(checkpoints) < 2:
        raise ConfigError("comparing takes two runs or more; for one there is `ddpo eval`")
    _evaluate(
        form,
        fail_if or [],
        checkpoints=tuple(checkpoints),
        prompts=tuple(prompts or ()),
        rewards=tuple(reward or ()),
        held_out=held_out,
        leaks=leaks,
        seeds=seeds,
        seed=seed,
        base=base,
        out=out,
        device=device,
        history=0,
        best_of=0,
    )


def _evaluate(form: str, fail_if: list[str], seed: int | None, **asked: object) -> None:
    """Plans, does and prints."""
    from ddpo.cli.quiet import quiet_libraries

    quiet_libraries()
    from ddpo.eval.config import EVAL_SEED, EvalConfig
    from ddpo.eval.plan import plan
    from ddpo.eval.report.fail_if import parse_condition

    if form not in ("terminal", "github", "json"):
        raise ConfigError(f"--format must be terminal, github or json, got {form!r}")
    if asked["leaks"] not in ("report", "drop"):
        raise ConfigError(f"--leaks must be report or drop, got {asked['leaks']!r}")
    conditions = [parse_condition(text) for text in fail_if]
    request = EvalConfig(seed=EVAL_SEED if seed is None else seed, **asked)  # type: ignore[arg-type]  # the options are named as its fields
    work = plan(request)
    for condition in conditions:
        condition.check(
            [m.name for m in work.models if not m.history],
            [s.name for s in work.splits],
            work.reward_ids,
        )
    console = Console(highlight=False, stderr=form != "terminal")
    if is_first_process():
        _announce(work, console)
    try:
        outcome = _run(work, console)
    except KeyboardInterrupt:
        console.print(
            "Stopped. The pictures and scores so far are kept; the same command goes on with them.",
            soft_wrap=True,
        )
        raise typer.Exit(130) from None
    _print(outcome, form, console)
    broken = [
        line
        for condition in conditions
        if outcome.report
        for line in condition.violations(outcome.report)
    ]
    for line in broken:
        typer.echo(f"condition met: {line}", err=True)
    if broken:
        raise typer.Exit(FAILED)


def _print(outcome: Outcome, form: str, console: Console) -> None:
    """The report in the form asked for, on standard output; where the files are, beside it."""
    if outcome.report is None:  # another process has it
        return
    if form == "json":
        typer.echo(outcome.json.read_text(encoding="utf-8"))
    elif form == "github":
        from ddpo.eval.report.markdown import render_github

        typer.echo(render_github(outcome.report))
    else:
        from ddpo.eval.report.terminal import render_terminal

        console.print()
        console.print(render_terminal(outcome.report))
    console.print(f"\nReport: {outcome.html}", markup=False, soft_wrap=True)


def _announce(work: Plan, console: Console) -> None:
    """Says what will be done, and which lists and files were taken."""
    lines = [f"{model.name}: {_origin(model)}" for model in work.models if not model.history]
    if earlier := sum(model.history for model in work.models):
        lines.append(
            f"with {earlier} earlier checkpoint{'s' if earlier > 1 else ''}, for the course of training"
        )
    for facts in work.split_facts:
        role = "seen in training" if facts.role == "seen" else "not in training"
        leaked = f"; {len(facts.leaks)} of them too near to training prompts" if facts.leaks else ""
        dropped = ", which were left out" if facts.dropped else ""
        lines.append(
            f"  {facts.name}: {facts.prompts} prompts, {facts.source}, {role}{leaked}{dropped}"
        )
    roles = {
        "trained": "trained on",
        "asked": "asked for",
        "heldout": "independent",
        "artefact": "pixel statistics",
    }
    for role, told in roles.items():
        if named := [reward.id for reward in work.rewards if reward.role == role]:
            lines.append(f"  scored by {', '.join(named)} ({told})")
    if not work.folders:
        sampler = work.sampler
        lines.append(
            f"{work.pictures} pictures, {work.seeds} per prompt and model from the same noise, {sampler.steps} steps, "
            f"guidance {sampler.guidance:g}, eta {sampler.eta:g}"
        )
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)


def _origin(model: ModelFacts) -> str:
    if model.kind == "images":
        return f"pictures in {model.checkpoint}"
    trained = f", trained on {model.trained_on}" if model.trained_on else ""
    return f"{model.kind} checkpoint, iteration {model.iteration}{trained}"


class _Forecast:
    """Time that drawing will take, printed once, from the speed of the second block and later ones.

    Args:
        images: number of images of the evaluation.
    """

    def __init__(self, images: int) -> None:
        self._images = images
        self._first: tuple[int, float] | None = None  # images drawn and time, at the first block
        self._said = False

    def line(self, event: EvalProgress, now: float) -> str | None:
        """The line, at the second block of images that were not there before; else None."""
        drawn = event.done - event.found
        if self._said or event.stage != "drawing" or drawn <= 0:
            return None
        if self._first is None or drawn <= self._first[0]:
            self._first = (drawn, now)
            return None
        self._said = True
        seconds = (now - self._first[1]) / (drawn - self._first[0]) * (self._images - event.done)
        return f"about {duration(seconds)} to draw what is left of {self._images:,} images; scoring comes after it"


def _run(work: Plan, console: Console) -> Outcome:
    """Carries out the plan under a progress bar with pictures per second and the time left."""
    from ddpo.eval.runner import run_evaluation

    if not is_first_process():
        return run_evaluation(work)
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    forecast = _Forecast(work.pictures)
    with Progress(*columns, console=console) as bars:
        tasks: dict[str, TaskID] = {}

        def observe(event: EvalProgress) -> None:
            name = f"{event.stage} {event.what}".strip()
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=event.total)
            bars.update(tasks[name], completed=event.done, total=event.total)
            if line := forecast.line(event, time.monotonic()):
                console.print(line, markup=False, soft_wrap=True)

        return run_evaluation(work, observe)
