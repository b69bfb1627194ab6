"""`ddpo train`."""

from __future__ import annotations

import shlex
import time
from contextlib import ExitStack, closing
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ddpo.cli.device import HELP
from ddpo.distributed import follow_quietly, is_first_process
from ddpo.errors import ConfigError, DdpoError, TrainingDiverged, UserError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from ddpo.trainer.monitoring.events import Event
    from ddpo.trainer.monitoring.tracking import RunTracker


def train_command(
    reward: Annotated[
        list[str] | None,
        typer.Option(
            help="A reward of `ddpo rewards list`, ./file.py:Object or package.module:Object, with :weight and :option=value,…; "
            "several are combined."
        ),
    ] = None,
    combine: Annotated[
        str | None,
        typer.Option(
            help="How several --reward become one number: sum (the default), min or pareto."
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="A TOML file of settings, or a name of `ddpo recipes list`."),
    ] = None,
    prompts: Annotated[
        str | None,
        typer.Option(help="A .txt file with one prompt a line, a table, or a built-in list."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="'emoji', a folder in diffusers' format, a hub id of Stable Diffusion 1.x, 2.x or XL, a model of an installed package, "
            "./file.py:Object or package.module:Object."
        ),
    ] = None,
    algorithm: Annotated[
        str | None,
        typer.Option(
            help="ddpo_is, ddpo_sf, rwr, rwr_sparse, one of an installed package, ./file.py:Object or package.module:Object."
        ),
    ] = None,
    iterations: Annotated[
        int | None, typer.Option(help="Rollouts; with --resume the new total.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of prompts, noise and adapters.")] = None,
    device: Annotated[str | None, typer.Option(help=f"{HELP} Rewards follow.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="The run folder; default runs/<reward>-<time>.")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Continue this run folder, with the settings that it has.")
    ] = None,
    held_out: Annotated[
        str | None,
        typer.Option(
            help="A reward that is not trained on; scored at each checkpoint, it names the best one (RUN/best)."
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Only look: ratio, reward, memory, time, disk. Leaves nothing behind."
        ),
    ] = False,
    low_memory: Annotated[
        bool,
        typer.Option(
            "--low-memory",
            help="Give speed for memory: gradient checkpointing, 8-bit AdamW where it is installed.",
        ),
    ] = False,
    track: Annotated[
        list[str] | None,
        typer.Option(help="tensorboard or wandb; metrics.jsonl is written always. Repeatable."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any setting, such as optim.lr=1e-4; repeatable."),
    ] = None,
) -> None:
    """Finetune a model on a reward."""
    named = {
        "reward": _joined(reward, combine),
        "prompts": prompts,
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
    values = _merged(layers)
    if resume is not None:
        if others := [
            name for name, value in {"--out": out, "--dry-run": dry_run}.items() if value
        ]:
            raise ConfigError(
                f"--resume continues a run where it is; leave out {' and '.join(others)}"
            )
        folder = resume
    else:
        folder = (
            out
            or Path("runs")
            / f"{_slug(str(values.get('reward', 'compressibility')))}-{time.strftime('%Y%m%d-%H%M%S')}"
        )
    from ddpo.cli.quiet import quiet_libraries

    quiet_libraries()
    from ddpo.trainer import resume as resume_run
    from ddpo.trainer import train
    from ddpo.trainer.loop import dry_run as look
    from ddpo.trainer.settings import resolve_config

    trackers = _checked_trackers(track or [])
    if resume is not None:
        _show(resume_run(folder, settings=values), folder, trackers)
    elif dry_run:
        _look(look(resolve_config(layers), folder), folder)
    else:
        _show(train(resolve_config(layers), folder), folder, trackers)


def _joined(rewards: list[str] | None, combination: str | None) -> str | None:
    """The expression of all --reward."""
    from ddpo.rewards.spec import join_specs

    if combination is not None and not rewards:
        raise ConfigError("--combine says how several --reward become one number: give them")
    return join_specs(rewards, combination or "sum") if rewards else None


def _layers(
    recipe: str | None, given: dict[str, Any], settings: list[str]
) -> list[tuple[str, dict[str, Any]]]:
    """Recipe, then named options, then --set, each with the words for its source: the later wins."""
    from ddpo.trainer.recipe import read_recipe, set_value

    layers: list[tuple[str, dict[str, Any]]] = []
    if recipe:
        layers.append((f"recipe {recipe}", read_recipe(recipe)))
    layers += [(f"--{name.replace('_', '-')}", {name: value}) for name, value in given.items()]
    for assignment in settings:
        values: dict[str, Any] = {}
        set_value(values, assignment)
        layers.append(("--set", values))
    return layers


def _merged(layers: list[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """The values of all layers."""
    from ddpo.trainer.recipe import merged

    values: dict[str, Any] = {}
    for _, layer in layers:
        values = merged(values, layer)
    return values


def _slug(text: str) -> str:
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in text).strip("-.")[:60]


def _checked_trackers(names: list[str]) -> list[str]:
    """The names, each once, if their packages are there."""
    from ddpo.registry import unknown_name
    from ddpo.trainer.monitoring.tracking import TRACKERS, check_tracker

    for name in names:
        if name not in TRACKERS:
            raise unknown_name("tracker", name, TRACKERS)
        check_tracker(name)
    return list(dict.fromkeys(names))


def _look(events: Iterator[Event], folder: Path) -> None:
    """Draws the check before a run."""
    if not is_first_process():
        follow_quietly(events)
        return
    from ddpo.cli.training_display import TrainingDisplay

    display = TrainingDisplay(folder)
    with display:
        for event in events:
            display.show(event)
    typer.echo("Nothing was trained, and nothing written.")


def _show(events: Generator[Event], folder: Path, trackers: list[str]) -> None:
    """Draws the events; an interruption or failure says how to go on."""
    if not is_first_process():
        follow_quietly(events)
        return
    go_on = f"go on with: ddpo train --resume {shlex.quote(str(folder))}"
    begun = False
    try:
        with ExitStack() as stack:
            stack.callback(events.close)
            opening = list(islice(events, 1))
            begun = bool(opening)
            _follow(chain(opening, events), folder, trackers, stack)
    except KeyboardInterrupt:
        whole = (folder / "config.json").exists()
        typer.echo(
            f"Stopped. The finished iterations are kept; {go_on}"
            if whole
            else "Stopped before anything was written."
        )
        raise typer.Exit(130) from None
    except DdpoError as error:
        if not begun and (isinstance(error, UserError) or not (folder / "config.json").exists()):
            raise
        state = folder / "state"
        kept = (
            f"the finished iterations are kept in {state}"
            if state.exists()
            else "no iteration was finished"
        )
        if isinstance(error, TrainingDiverged):
            go_on = "resumed, the run would end here again: start another"
        raise type(error)(f"{error} — {kept}; {go_on}") from error
    typer.echo(f"Run folder: {folder}")
    typer.echo(f"Next: ddpo eval --checkpoint {folder}")


def _follow(events: Iterator[Event], folder: Path, trackers: list[str], stack: ExitStack) -> None:
    """Hands each event to the display and the trackers; stops after Ctrl-C where nothing is half written."""
    from ddpo.cli.interruption import Interruption
    from ddpo.cli.quiet import silent_writer_threads
    from ddpo.cli.training_display import TrainingDisplay
    from ddpo.cli.warnings import one_line_warnings
    from ddpo.trainer.monitoring.events import Checkpointed, Started

    stack.enter_context(one_line_warnings())
    if trackers:
        stack.enter_context(silent_writer_threads())
    interruption, display = (
        stack.enter_context(Interruption()),
        stack.enter_context(TrainingDisplay(folder)),
    )
    watchers: list[TrainingDisplay | RunTracker] = [display]
    for event in events:
        if isinstance(event, Started):
            watchers += [
                stack.enter_context(closing(_tracker(name, folder, event.iteration)))
                for name in trackers
            ]
            interruption.arm()
        for watcher in watchers:
            watcher.show(event)
        if interruption.asked and not isinstance(event, Checkpointed):
            raise KeyboardInterrupt


def _tracker(name: str, folder: Path, done: int) -> RunTracker:
    """Tells a tracker the settings of the run, and then its events."""
    from ddpo.trainer.monitoring.tracking import RunTracker, open_tracker
    from ddpo.trainer.run.folder import RunFolder

    tracker = open_tracker(name, folder, done)
    typer.echo(f"{name}: {tracker.address}")
    return RunTracker(name, tracker, RunFolder.open(folder).config().to_dict())
