"""`ddpo train`."""

from __future__ import annotations

import shlex
from contextlib import ExitStack, closing
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ddpo.author_errors import author_failure
from ddpo.cli.commands import examples
from ddpo.cli.console import (
    echo,
    note_console,
    one_line_warnings,
    quiet_libraries,
    silent_writer_threads,
)
from ddpo.cli.early import check_resumed, check_settings, check_trackers, check_training
from ddpo.cli.options import Trust
from ddpo.cli.training_options import (
    Algorithm,
    Combination,
    DryRun,
    HeldOut,
    Iterations,
    Limit,
    LowMemory,
    Model,
    Out,
    PrintConfig,
    Prompts,
    Recipe,
    Resume,
    Rewards,
    Seed,
    Settings,
    Trackers,
    TrainDevice,
)
from ddpo.cli.verbosity import is_quiet
from ddpo.distributed import follow_quietly, is_first_process
from ddpo.errors import ConfigError, DdpoError, TrainingDiverged, UserError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from ddpo.trainer.monitoring.events import Event
    from ddpo.trainer.monitoring.tracking import RunTracker

Layers = list[tuple[str, dict[str, Any]]]
"""Settings with the words for their source; later ones win."""


@examples(
    "ddpo train --reward compressibility --out runs/demo",
    "ddpo train --reward ./my_reward.py:redness --dry-run",
    "ddpo train --resume runs/demo --iterations 20",
)
def train_command(
    reward: Rewards = None,
    combine: Combination = None,
    recipe: Recipe = None,
    prompts: Prompts = None,
    limit: Limit = None,
    model: Model = None,
    algorithm: Algorithm = None,
    iterations: Iterations = None,
    seed: Seed = None,
    device: TrainDevice = None,
    out: Out = None,
    resume: Resume = None,
    held_out: HeldOut = None,
    dry_run: DryRun = False,
    print_config: PrintConfig = False,
    low_memory: LowMemory = False,
    track: Trackers = None,
    settings: Settings = None,
    trust: Trust = None,
) -> None:
    """Finetune a model on a reward, into a run folder with checkpoints and metrics."""
    named = {
        "reward": _joined(reward, combine),
        "prompts": prompts,
        "prompt_limit": limit,
        "model": model,
        "algorithm": algorithm,
        "iterations": iterations,
        "seed": seed,
        "device": device,
        "held_out": held_out,
        "low_memory": low_memory or None,
    }
    given = {name: value for name, value in named.items() if value is not None}
    layers = _layers(recipe, given, settings or [])
    if resume is not None:
        if others := [
            name
            for name, value in {
                "--out": out,
                "--dry-run": dry_run,
                "--print-config": print_config,
            }.items()
            if value
        ]:
            raise ConfigError(
                f"--resume continues a run where it is; leave out {' and '.join(others)}"
            )
        _resume(resume, layers, track or [], trust or [])
        return
    if trust:
        raise ConfigError("--trust is about the files of a run: give it with --resume RUN")
    if print_config:
        _print_config(layers)
        return
    folder = out or _default_folder(layers)
    if dry_run:
        _dry_run(folder, layers, track or [])
    else:
        _train(folder, layers, track or [])


def _resume(folder: Path, layers: Layers, track: list[str], trust: list[str]) -> None:
    check_trackers(track)
    settings = _merged(layers)
    check_resumed(folder, settings, trust)
    trackers = _checked_trackers(track)
    quiet_libraries()
    from ddpo.trainer import resume

    _show(resume(folder, settings=settings, trust=trust), folder, trackers)


def _train(folder: Path, layers: Layers, track: list[str]) -> None:
    check_training(layers, folder, track)
    trackers = _checked_trackers(track)
    quiet_libraries()
    from ddpo.trainer import train
    from ddpo.trainer.settings import resolve_config

    _show(train(resolve_config(layers), folder), folder, trackers)


def _print_config(layers: Layers) -> None:
    """Prints the resolved settings as a recipe."""
    from ddpo.policies.model_place import locate
    from ddpo.trainer.recipe import recipe_of
    from ddpo.trainer.settings import resolve_config, written_config

    config = written_config(layers)
    locate(config.model)
    check_settings(config)
    echo(recipe_of(resolve_config(layers)).rstrip())


def _dry_run(folder: Path, layers: Layers, track: list[str]) -> None:
    check_training(layers, folder, track)
    _checked_trackers(track)
    quiet_libraries()
    from ddpo.trainer.loop import dry_run
    from ddpo.trainer.settings import resolve_config

    _show_dry_run(dry_run(resolve_config(layers), folder), folder)


def _default_folder(layers: Layers) -> Path:
    """runs/<reward>-<time>."""
    from ddpo.trainer.run.naming import new_run_folder

    return new_run_folder(str(_merged(layers).get("reward", "compressibility")))


def _joined(rewards: list[str] | None, combination: str | None) -> str | None:
    """All --reward as one expression."""
    from ddpo.rewards.spec import join_specs

    if combination is not None and not rewards:
        raise ConfigError("--combine says how several --reward become one number: give them")
    return join_specs(rewards, combination or "sum") if rewards else None


def _layers(recipe: str | None, given: dict[str, Any], settings: list[str]) -> Layers:
    """The settings of the recipe, then of the named options, then of --set."""
    from ddpo.trainer.recipe import read_recipe, set_value

    layers: Layers = []
    if recipe:
        layers.append((f"recipe {recipe}", read_recipe(recipe)))
    layers += [(_option_of(name), {name: value}) for name, value in given.items()]
    for assignment in settings:
        values: dict[str, Any] = {}
        set_value(values, assignment)
        layers.append(("--set", values))
    return layers


def _option_of(setting: str) -> str:
    """The option that gives a setting."""
    return "--limit" if setting == "prompt_limit" else f"--{setting.replace('_', '-')}"


def _merged(layers: Layers) -> dict[str, Any]:
    """The values of all layers."""
    from ddpo.trainer.recipe import merged

    values: dict[str, Any] = {}
    for _, layer in layers:
        values = merged(values, layer)
    return values


def _checked_trackers(names: list[str]) -> list[str]:
    """The names of trackers, each once.

    Raises:
        DdpoError: A tracker is unknown, or its package is missing.
    """
    from ddpo.trainer.monitoring.tracking import check_tracker

    check_trackers(names)
    for name in names:
        check_tracker(name)
    return list(dict.fromkeys(names))


def _show_dry_run(events: Iterator[Event], folder: Path) -> None:
    """Shows the check before a run."""
    if not is_first_process():
        follow_quietly(events)
        return
    from ddpo.cli.training_display import TrainingDisplay

    display = TrainingDisplay(folder, note_console(stderr=False))
    with display:
        for event in events:
            display.show(event)
    echo("Nothing was trained, and nothing written.")


def _show(events: Generator[Event], folder: Path, trackers: list[str]) -> None:
    """Shows the events of a run; an interruption or a failure names the command that resumes it.

    Raises:
        DdpoError: The run failed; the message names what is kept.
        typer.Exit: The user stopped the run.
    """
    if not is_first_process():
        follow_quietly(events)
        return
    started = False
    try:
        with ExitStack() as stack:
            stack.callback(events.close)
            opening = list(islice(events, 1))
            started = bool(opening)
            _follow(chain(opening, events), folder, trackers, stack)
    except KeyboardInterrupt:
        _report_interruption(folder)
        raise typer.Exit(130) from None
    except (Exception, SystemExit) as error:
        failure = error if isinstance(error, DdpoError) else author_failure(error)
        if failure is None:
            raise
        written = (folder / "config.json").exists()
        if not written or (not started and isinstance(failure, UserError)):
            raise
        raise type(failure)(f"{failure} — {_remainder(folder, failure)}") from error
    echo(f"Run folder: {folder}")
    if is_quiet():
        return
    options = _trust_options(folder, ("reward", "model"))
    echo(f"Next: ddpo eval --checkpoint {shlex.quote(str(folder))}{options}")


def _report_interruption(folder: Path) -> None:
    if (folder / "config.json").exists() and not (folder / "state").exists():
        hint = _resume_hint(folder)
        echo(f"Stopped. No iteration was finished; repeat the command, or {hint}")
    elif (folder / "config.json").exists():
        echo(f"Stopped. The finished iterations are kept; {_resume_hint(folder)}")
    else:
        echo("Stopped before anything was written.")


def _resume_hint(folder: Path) -> str:
    command = f"ddpo train --resume {shlex.quote(str(folder))}"
    return f"resume with: {command}{_trust_options(folder)}"


def _trust_options(folder: Path, settings: tuple[str, ...] | None = None) -> str:
    """The options, after a space, that name the code and the servers of a run; see `RunFolder`."""
    from ddpo.trainer.run.folder import RunFolder

    return RunFolder(folder).trust_options(settings)


def _remainder(folder: Path, error: DdpoError) -> str:
    """The state that a failed run leaves, and the next step."""
    state = folder / "state"
    kept = f"the finished iterations are kept in {state}"
    if not state.exists():
        kept = "no iteration was finished"
    if isinstance(error, TrainingDiverged):
        return f"{kept}; resumed, the run would end here again: start another"
    if not state.exists():
        return f"{kept}; repeat the command, or {_resume_hint(folder)}"
    return f"{kept}; {_resume_hint(folder)}"


def _follow(events: Iterator[Event], folder: Path, trackers: list[str], stack: ExitStack) -> None:
    """Hands each event to the display and the trackers.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed; it is raised where nothing is half written.
    """
    from ddpo.cli.signals import Interruption
    from ddpo.cli.training_display import TrainingDisplay
    from ddpo.trainer.monitoring.events import Checkpointed, Started

    stack.enter_context(one_line_warnings())
    if trackers:
        stack.enter_context(silent_writer_threads())
    interruption = stack.enter_context(Interruption())
    display = TrainingDisplay(folder, note_console(stderr=False))
    watchers: list[TrainingDisplay | RunTracker] = [stack.enter_context(display)]
    for event in events:
        if isinstance(event, Started):
            for name in trackers:
                tracker = _open_tracker(name, folder, event.iteration)
                watchers.append(stack.enter_context(closing(tracker)))
            interruption.arm()
        for watcher in watchers:
            watcher.show(event)
        if interruption.asked and not isinstance(event, Checkpointed):
            raise KeyboardInterrupt


def _open_tracker(name: str, folder: Path, done: int) -> RunTracker:
    """A tracker that has the settings of the run, and takes its events."""
    from ddpo.trainer.monitoring.tracking import RunTracker, open_tracker
    from ddpo.trainer.run.folder import RunFolder

    tracker = open_tracker(name, folder, done)
    if not is_quiet():
        echo(f"{name}: {tracker.address}")
    return RunTracker(name, tracker, RunFolder.open(folder).config().to_dict())
