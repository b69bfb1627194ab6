"""`ddpo eval` and `ddpo compare`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ddpo.cli.console import echo, new_console, quiet_libraries
from ddpo.cli.evaluation_display import announce, print_outcome, run_with_progress
from ddpo.cli.evaluation_options import (
    Base,
    BestOf,
    Checkpoints,
    Eta,
    FailIf,
    Format,
    Guidance,
    HeldOut,
    History,
    HistorySeeds,
    Images,
    Leaks,
    Out,
    Prompts,
    Rewards,
    Seed,
    Seeds,
    Steps,
    TrainedPrompts,
)
from ddpo.cli.options import RunDevice, Trust
from ddpo.distributed import is_first_process
from ddpo.errors import ConfigError

if TYPE_CHECKING:
    from ddpo.eval.report.data import Report
    from ddpo.eval.report.fail_if import Condition

FAILED: int = 3
"""The exit status when a condition of --fail-if is true."""


def evaluate_command(
    checkpoint: Checkpoints = None,
    images: Images = None,
    prompts: Prompts = None,
    reward: Rewards = None,
    held_out: HeldOut = True,
    leaks: Leaks = "report",
    seeds: Seeds = 4,
    seed: Seed = None,
    history: History = 6,
    history_seeds: HistorySeeds = 2,
    best_of: BestOf = None,
    trained_prompts: TrainedPrompts = None,
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
        announce(work, console)
    try:
        outcome = run_with_progress(work, console)
    except KeyboardInterrupt:
        console.print(
            "Stopped. The images and scores so far are kept; the same command resumes.",
            soft_wrap=True,
        )
        raise typer.Exit(130) from None
    print_outcome(outcome, form, console)
    if outcome.report:
        _exit_on_violations(outcome.report, conditions)


def _exit_on_violations(report: Report, conditions: list[Condition]) -> None:
    """Prints each condition that is true and ends the program with exit code 3 if there is any."""
    met = [line for condition in conditions for line in condition.violations(report)]
    for line in met:
        echo(f"condition met: {line}", err=True)
    if met:
        raise typer.Exit(FAILED)
