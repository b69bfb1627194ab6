"""`ddpo eval` and `ddpo compare`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import typer

from ddpo.cli.commands import examples, renamed
from ddpo.cli.console import echo, new_console, note_console, quiet_libraries
from ddpo.cli.early_evaluation import check_evaluation
from ddpo.cli.evaluation_display import announce, print_outcome, run_with_progress
from ddpo.cli.evaluation_options import (
    Base,
    BestOf,
    Checkpoints,
    ComparedRuns,
    Eta,
    FailIf,
    Format,
    Grid,
    Guidance,
    HeldOut,
    History,
    HistoryPerPrompt,
    Images,
    Leaks,
    Limit,
    Out,
    PerPrompt,
    Preferences,
    Prompts,
    Rewards,
    Runs,
    Seed,
    Steps,
    TrainedPrompts,
    Transition,
)
from ddpo.cli.misplaced import check_runs
from ddpo.cli.options import AsJson, ImageSize, RunDevice, Trust
from ddpo.distributed import is_first_process
from ddpo.errors import ConfigError, RewardFailure

if TYPE_CHECKING:
    from ddpo.eval.report.data import Report
    from ddpo.eval.report.fail_if import Condition

FAILED: int = 3
"""The exit status when a condition of --fail-if is true."""

UNDECIDED: int = 4
"""The exit status when none is true, and one cannot be decided."""

MEASURED: Final = ("trained", "asked")
"""Roles of rewards without whose scores an evaluation has failed."""

TERMINAL: Final = "terminal"
JSON: Final = "json"
FORMS: Final = (TERMINAL, "github", JSON)
OLD_NAMES: Final = {
    "--seeds": "--per-prompt",
    "--history-seeds": "--history-per-prompt",
    "--base": "--model",
}


@examples(
    "ddpo eval runs/demo",
    "ddpo eval runs/demo --limit 10 --per-prompt 2",
    "ddpo eval runs/demo --fail-if 'reading >= strong'",
)
@renamed(OLD_NAMES)
def evaluate_command(
    runs: Runs = None,
    checkpoint: Checkpoints = None,
    images: Images = None,
    prompts: Prompts = None,
    limit: Limit = None,
    reward: Rewards = None,
    held_out: HeldOut = True,
    preferences: Preferences = None,
    leaks: Leaks = "report",
    seeds: PerPrompt = 4,
    seed: Seed = None,
    history: History = 6,
    history_seeds: HistoryPerPrompt = 2,
    best_of: BestOf = None,
    trained_prompts: TrainedPrompts = None,
    base: Base = None,
    steps: Steps = None,
    guidance: Guidance = None,
    eta: Eta = None,
    transition: Transition = None,
    grid: Grid = None,
    size: ImageSize = None,
    out: Out = None,
    device: RunDevice = None,
    trust: Trust = None,
    form: Format = TERMINAL,
    as_json: AsJson = False,
    fail_if: FailIf = None,
) -> None:
    """Write a report of checkpoints against their base model on seen and unseen prompts.

    An interrupted evaluation resumes when the same command is given again.
    """
    check_runs(runs or (), "give it as --reward")
    _evaluate(
        _form(form, as_json),
        fail_if or [],
        checkpoints=(*(runs or ()), *(checkpoint or ())),
        images=tuple(images or ()),
        prompts=tuple(prompts or ()),
        limit=limit,
        rewards=tuple(reward or ()),
        held_out=held_out,
        preferences=tuple(preferences or ()),
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
        transition=transition,
        grid=grid,
        size=size or (),
        out=out,
        device=device,
        trust=tuple(trust or ()),
    )


@examples(
    "ddpo compare runs/a runs/b",
    "ddpo compare runs/a runs/b --limit 10 -o report",
)
@renamed(OLD_NAMES)
def compare_command(
    checkpoints: ComparedRuns,
    prompts: Prompts = None,
    limit: Limit = None,
    reward: Rewards = None,
    held_out: HeldOut = True,
    preferences: Preferences = None,
    leaks: Leaks = "report",
    seeds: PerPrompt = 4,
    seed: Seed = None,
    base: Base = None,
    out: Out = None,
    device: RunDevice = None,
    trust: Trust = None,
    form: Format = TERMINAL,
    as_json: AsJson = False,
    fail_if: FailIf = None,
) -> None:
    """Write a report of several runs side by side, on the same prompts, noise and rewards.

    It is `ddpo eval` without the run history. `ddpo rewards compare` compares rewards on images.
    """
    check_runs(checkpoints, "`ddpo rewards compare` compares rewards on images")
    if len(checkpoints) < 2:
        raise ConfigError("comparing takes two runs or more; for one there is `ddpo eval`")
    _evaluate(
        _form(form, as_json),
        fail_if or [],
        checkpoints=tuple(checkpoints),
        prompts=tuple(prompts or ()),
        limit=limit,
        rewards=tuple(reward or ()),
        held_out=held_out,
        preferences=tuple(preferences or ()),
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


def _form(form: str, as_json: bool) -> str:
    """The form of the printed report; --json is the same as --format json.

    Raises:
        ConfigError: The two options contradict each other, or there is no such form.
    """
    if form not in FORMS:
        raise ConfigError(f"--format must be terminal, github or json, got {form!r}")
    if as_json and form not in (TERMINAL, JSON):
        raise ConfigError(f"--json and --format {form} contradict each other: give one of them")
    return JSON if as_json else form


def _evaluate(form: str, fail_if: list[str], seed: int | None, **options: object) -> None:
    """Plans the evaluation, runs it, prints its report and checks the conditions of --fail-if.

    Raises:
        typer.Exit: A condition is true or undecided, or the user stopped the evaluation.
        RewardFailure: A trained or named reward scored no pair of images.
    """
    conditions = _conditions(fail_if)
    named = check_evaluation(options, conditions)
    quiet_libraries()
    from ddpo.eval.config import EVAL_SEED, EvalConfig
    from ddpo.eval.plan import plan

    options["seed"] = EVAL_SEED if seed is None else seed
    config = EvalConfig(**options)  # type: ignore[arg-type]  # named as its fields
    work = plan(config, named)
    for condition in conditions:
        condition.check(
            [model.name for model in work.models if not model.history],
            [split.name for split in work.splits],
            work.reward_ids,
        )
    console = new_console(highlight=False)
    notes = note_console(highlight=False, stderr=form != TERMINAL)
    if is_first_process():
        announce(work, notes)
    try:
        outcome = run_with_progress(work, notes)
    except KeyboardInterrupt:
        notes.print(
            "Stopped. The images and scores so far are kept; the same command resumes.",
            soft_wrap=True,
        )
        raise typer.Exit(130) from None
    print_outcome(outcome, form, console if form == TERMINAL else notes)
    if outcome.report:
        _exit_on_violations(outcome.report, conditions)
        _check_measured(outcome.report)


def _conditions(texts: list[str]) -> list[Condition]:
    """The conditions of --fail-if; without any, nothing is imported."""
    if not texts:
        return []
    from ddpo.eval.report.fail_if import parse_condition

    return [parse_condition(text) for text in texts]


def _exit_on_violations(report: Report, conditions: list[Condition]) -> None:
    """Prints each condition that is true or cannot be decided, and exits with 3 or 4."""
    found = [one for condition in conditions for one in condition.decisions(report)]
    for one in found:
        echo(f"{'condition met' if one.is_met else 'cannot be decided'}: {one.line}", err=True)
    if found:
        raise typer.Exit(FAILED if any(one.is_met for one in found) else UNDECIDED)


def _check_measured(report: Report) -> None:
    """Checks that each trained or named reward compares at least one pair of images.

    Raises:
        RewardFailure: A reward scored no pair; the report is written nevertheless.
    """
    measured = {gain.reward for gain in report.gains if gain.paired.gain.n}
    for reward in report.rewards:
        if reward.role in MEASURED and reward.id not in measured:
            raise RewardFailure(
                f"reward {reward.id!r} scored no pair of images, so the report says nothing of it; "
                "the column `error` of samples.parquet has the reasons"
            )
