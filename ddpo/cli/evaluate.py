"""`ddpo eval` and `ddpo compare`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console

from ddpo.cli.console import echo, new_console, print_json_text, quiet_libraries
from ddpo.cli.options import RunDevice, Trust, number_option
from ddpo.distributed import is_first_process
from ddpo.errors import ConfigError
from ddpo.eval.config import BEST_OF, HISTORY
from ddpo.ranges import ETA, GUIDANCE, IMAGES, SEED, STEPS
from ddpo.text import count, duration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.progress import TaskID

    from ddpo.eval.inputs.models import ModelFacts
    from ddpo.eval.plan import Plan
    from ddpo.eval.report.data import Report
    from ddpo.eval.report.fail_if import Condition
    from ddpo.eval.runner import EvalProgress, Outcome

FAILED: int = 3  # the exit status when a condition of --fail-if is true
UNDECIDED: int = 4  # when none is true, and one cannot be decided
ROLES = {
    "trained": "trained on",
    "asked": "given by --reward",
    "heldout": "independent",
    "artefact": "pixel statistics",
}
SAMPLING: Final = "sampling"  # the stage of `EvalProgress` that samples images

Prompts = Annotated[
    list[str] | None,
    typer.Option(
        help="A .txt file with one prompt a line, a table, a built-in list, or NAME=FILE; "
        "repeatable. Default: the lists that suit the model."
    ),
]
Rewards = Annotated[
    list[str] | None,
    typer.Option(
        help="Reward besides the run's own, or an expression such as "
        "'aesthetic + compressibility:0.2'; repeatable, each one is reported by itself."
    ),
]
HeldOut = Annotated[
    bool, typer.Option(help="Scores of independent rewards and pixel statistics too.")
]
Leaks = Annotated[
    str,
    typer.Option(help="Treatment of held-out prompts close to training: 'report' or 'drop'."),
]
Seeds = Annotated[int, number_option(IMAGES, "Number of images per prompt and model.")]
Seed = Annotated[
    int | None,
    number_option(SEED, "Seed of the noise; default: one that training does not use."),
]
Steps = Annotated[
    int | None, number_option(STEPS, "Number of denoising steps; default: the run's.")
]
Guidance = Annotated[
    float | None,
    number_option(GUIDANCE, "Scale of classifier-free guidance, 1 for none; default: the run's."),
]
Eta = Annotated[float | None, number_option(ETA, "Stochasticity; default: the run's.")]
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
        help="Printed report: 'terminal', 'github' (Markdown for a job summary) or 'json'.",
    ),
]
FailIf = Annotated[
    list[str] | None,
    typer.Option(
        help="Condition such as 'unseen_animals.gain < 0' or 'reading >= strong' that, if true, "
        "gives exit code 3, or 4 if it cannot be decided; repeatable."
    ),
]
Base = Annotated[str | None, typer.Option(help="Base model, for checkpoints of other trainers.")]
Checkpoints = Annotated[
    list[str] | None,
    typer.Option(help="Run folder (its last checkpoint), checkpoint folder or hub id; repeatable."),
]
Images = Annotated[
    list[str] | None,
    typer.Option(
        help="Images from elsewhere: base=FOLDER, and NAME=FOLDER for each model; "
        "also tables and archives."
    ),
]
BestOf = Annotated[
    int | None,
    number_option(
        BEST_OF,
        "Number n of best-of-n sampling of the base model, a yardstick; 0 for none. "
        "Default: the run's number of queries per prompt.",
    ),
]


def evaluate_command(
    checkpoint: Checkpoints = None,
    images: Images = None,
    prompts: Prompts = None,
    reward: Rewards = None,
    held_out: HeldOut = True,
    leaks: Leaks = "report",
    seeds: Seeds = 4,
    seed: Seed = None,
    history: Annotated[
        int,
        number_option(HISTORY, "Number of earlier checkpoints of each run, for the run history."),
    ] = 6,
    history_seeds: Annotated[
        int, number_option(IMAGES, "Number of images per prompt of an earlier checkpoint.")
    ] = 2,
    best_of: BestOf = None,
    trained_prompts: Annotated[
        str | None,
        typer.Option(help="Prompt list of the training, where the run does not record it."),
    ] = None,
    base: Base = None,
    steps: Steps = None,
    guidance: Guidance = None,
    eta: Eta = None,
    out: Out = None,
    device: RunDevice = None,
    trust: Trust = None,
    form: Format = "terminal",
    fail_if: FailIf = None,
) -> None:
    """Write a report of checkpoints against their base model on seen and unseen prompts.

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
        trust=tuple(trust or ()),
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
    trust: Trust = None,
    form: Format = "terminal",
    fail_if: FailIf = None,
) -> None:
    """Write a report of several runs side by side, on the same prompts, noise and rewards.

    It is `ddpo eval` without the run history.
    """
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
        trust=tuple(trust or ()),
        history=0,
        best_of=0,
    )


def _evaluate(form: str, fail_if: list[str], seed: int | None, **options: object) -> None:
    """Plans the evaluation, runs it, prints its report and checks the conditions of --fail-if.

    Raises:
        typer.Exit: A condition is true, or the user stopped the evaluation.
    """
    quiet_libraries()
    from ddpo.eval.config import EVAL_SEED, EvalConfig
    from ddpo.eval.plan import plan
    from ddpo.eval.report.fail_if import parse_condition

    if form not in ("terminal", "github", "json"):
        raise ConfigError(f"--format must be terminal, github or json, got {form!r}")
    if options["leaks"] not in ("report", "drop"):
        raise ConfigError(f"--leaks must be report or drop, got {options['leaks']!r}")
    conditions = [parse_condition(text) for text in fail_if]
    options["seed"] = EVAL_SEED if seed is None else seed
    work = plan(EvalConfig(**options))  # type: ignore[arg-type]  # named as its fields
    for condition in conditions:
        condition.check(
            [model.name for model in work.models if not model.history],
            [split.name for split in work.splits],
            work.reward_ids,
        )
    console = new_console(highlight=False, stderr=form != "terminal")
    if is_first_process():
        _announce(work, console)
    try:
        outcome = _run(work, console)
    except KeyboardInterrupt:
        console.print(
            "Stopped. The images and scores so far are kept; the same command resumes.",
            soft_wrap=True,
        )
        raise typer.Exit(130) from None
    _print(outcome, form, console)
    if outcome.report:
        _exit_on_violations(outcome.report, conditions)


def _exit_on_violations(report: Report, conditions: list[Condition]) -> None:
    """Prints each condition that is true or cannot be decided, and exits with 3 or 4."""
    found = [one for condition in conditions for one in condition.decisions(report)]
    for one in found:
        echo(f"{'condition met' if one.is_met else 'cannot be decided'}: {one.line}", err=True)
    if found:
        raise typer.Exit(FAILED if any(one.is_met for one in found) else UNDECIDED)


def _print(outcome: Outcome, form: str, console: Console) -> None:
    """Prints the report in the requested form to standard output, and the path of its page."""
    if outcome.report is None:  # the first process prints it
        return
    if form == "json":
        print_json_text(outcome.json.read_text(encoding="utf-8"))
    elif form == "github":
        from ddpo.eval.report.markdown import render_github

        echo(render_github(outcome.report))
    else:
        from ddpo.eval.report.terminal import render_terminal

        console.print()
        console.print(render_terminal(outcome.report))
    console.print(f"\nReport: {outcome.html}", markup=False, soft_wrap=True)


def _announce(work: Plan, console: Console) -> None:
    """Prints the models, prompts, rewards and settings of the evaluation."""
    for line in (*_model_lines(work), *_split_lines(work), *_reward_lines(work)):
        console.print(line, markup=False, soft_wrap=True)
    if not work.folders:
        sampler = work.sampler
        console.print(
            f"{work.image_count} images, {work.seeds} per prompt and model from the same noise, "
            f"{sampler.steps} steps, guidance {sampler.guidance:g}, eta {sampler.eta:g}",
            markup=False,
            soft_wrap=True,
        )


def _model_lines(work: Plan) -> Iterator[str]:
    for model in work.models:
        if not model.history:
            yield f"{model.name}: {_origin(model)}"
    earlier = sum(model.history for model in work.models)
    if earlier:
        yield f"with {count(earlier, 'earlier checkpoint')}, for the run history"


def _split_lines(work: Plan) -> Iterator[str]:
    for facts in work.split_facts:
        role = "seen in training" if facts.role == "seen" else "not in training"
        leaked = f"; {len(facts.leaks)} of them too near to training prompts" if facts.leaks else ""
        dropped = ", which were left out" if facts.dropped else ""
        yield f"  {facts.name}: {facts.prompts} prompts, {facts.source}, {role}{leaked}{dropped}"


def _reward_lines(work: Plan) -> Iterator[str]:
    for role, words in ROLES.items():
        if named := [reward.id for reward in work.rewards if reward.role == role]:
            yield f"  scored by {', '.join(named)} ({words})"


def _origin(model: ModelFacts) -> str:
    if model.kind == "images":
        return f"images in {model.checkpoint}"
    trained = f", trained on {model.trained_on}" if model.trained_on else ""
    return f"{model.kind} checkpoint, iteration {model.iteration}{trained}"


class _Forecast:
    """The time that sampling takes, reported once, from the speed after the first block.

    Args:
        images: Number of images of the evaluation.
    """

    def __init__(self, images: int) -> None:
        self._images = images
        self._first: tuple[int, float] | None = None  # sampled images and time, at the first block
        self._reported = False

    def line(self, event: EvalProgress, now: float) -> str | None:
        """The line after the second block of new images; None before and afterwards.

        Args:
            event: Progress of the evaluation.
            now: Time in seconds.
        """
        sampled = event.done - event.found
        if self._reported or event.stage != SAMPLING or sampled <= 0:
            return None
        if self._first is None or sampled <= self._first[0]:
            self._first = (sampled, now)
            return None
        self._reported = True
        each = (now - self._first[1]) / (sampled - self._first[0])
        left = duration(each * (self._images - event.done))
        return f"about {left} to sample the rest of {self._images:,} images; scoring comes after it"


def _run(work: Plan, console: Console) -> Outcome:
    """Runs the plan under progress bars with the time left."""
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
    forecast = _Forecast(work.image_count)
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
