"""A training run under way: its events go to the display, to JSON and to trackers."""

from __future__ import annotations

import shlex
from contextlib import ExitStack, closing
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ddpo.author_errors import author_failure
from ddpo.cli.console import echo, note_console, one_line_warnings, silent_writer_threads
from ddpo.cli.training_events import JsonEvents, print_event
from ddpo.cli.verbosity import is_quiet
from ddpo.distributed import follow_quietly, is_first_process
from ddpo.errors import INTERRUPTS, DdpoError, TrainingDiverged, UserError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from ddpo.cli.training_display import TrainingDisplay
    from ddpo.trainer.monitoring.events import Event
    from ddpo.trainer.monitoring.tracking import RunTracker

__all__ = ["show_dry_run", "show_run"]


def show_dry_run(events: Iterator[Event], folder: Path, as_json: bool) -> None:
    """Shows the check before a run.

    Args:
        events: Events of the check.
        folder: Run folder, which is not made.
        as_json: True for JSON lines on standard output.
    """
    if not is_first_process():
        follow_quietly(events)
        return
    with _display(folder, as_json) as display:
        for event in events:
            display.show(event)
    if as_json:
        print_event("finished", run=None)
    else:
        echo("Nothing was trained, and nothing written.")


def _display(folder: Path, as_json: bool) -> TrainingDisplay | JsonEvents:
    """The view of a run on a terminal, or its events as JSON lines."""
    if as_json:
        return JsonEvents()
    from ddpo.cli.training_display import TrainingDisplay

    return TrainingDisplay(folder, note_console(stderr=False))


def show_run(events: Generator[Event], folder: Path, trackers: list[str], as_json: bool) -> None:
    """Shows the events of a run; an interruption or a failure names the command that resumes it.

    Args:
        events: Events of the run.
        folder: Run folder.
        trackers: Names of trackers, each once.
        as_json: True for JSON lines on standard output, and nothing else there.

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
            _follow(chain(opening, events), folder, trackers, stack, as_json)
    except KeyboardInterrupt:
        _report_interruption(folder, as_json)
        raise typer.Exit(130) from None
    except INTERRUPTS:
        raise
    except BaseException as error:
        failure = error if isinstance(error, DdpoError) else author_failure(error)
        if failure is None:
            raise
        written = (folder / "config.json").exists()
        if not written or (not started and isinstance(failure, UserError)):
            raise
        raise type(failure)(f"{failure} — {_remainder(folder, failure)}") from error
    if as_json:
        print_event("finished", run=folder)
        return
    echo(f"Run folder: {folder}")
    if is_quiet():
        return
    from ddpo.trainer.run.stopping import STOP_FILE

    options = _trust_options(folder, ("reward", "model"))
    checkpoint = folder / "best" if (folder / STOP_FILE).exists() else folder
    echo(f"Next: ddpo eval --checkpoint {shlex.quote(str(checkpoint))}{options}")


def _report_interruption(folder: Path, as_json: bool) -> None:
    """Prints the state that a stopped run leaves; with JSON lines, on standard error."""
    if (folder / "config.json").exists() and not (folder / "state").exists():
        hint = _resume_hint(folder)
        echo(f"Stopped. No iteration was finished; repeat the command, or {hint}", err=as_json)
    elif (folder / "config.json").exists():
        echo(f"Stopped. The finished iterations are kept; {_resume_hint(folder)}", err=as_json)
    else:
        echo("Stopped before anything was written.", err=as_json)
    if as_json:
        print_event("stopped", run=folder)


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


def _follow(
    events: Iterator[Event], folder: Path, trackers: list[str], stack: ExitStack, as_json: bool
) -> None:
    """Hands each event to the display and the trackers.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed; it is raised where nothing is half written.
    """
    from ddpo.cli.signals import Interruption
    from ddpo.trainer.monitoring.events import Checkpointed, Started

    stack.enter_context(one_line_warnings())
    if trackers:
        stack.enter_context(silent_writer_threads())
    interruption = stack.enter_context(Interruption())
    display = _display(folder, as_json)
    stack.enter_context(display)
    watchers: list[TrainingDisplay | JsonEvents | RunTracker] = [display]
    for event in events:
        if isinstance(event, Started):
            for name in trackers:
                tracker = _open_tracker(name, folder, event.iteration, as_json)
                watchers.append(stack.enter_context(closing(tracker)))
            interruption.arm()
        for watcher in watchers:
            watcher.show(event)
        if interruption.asked and not isinstance(event, Checkpointed):
            raise KeyboardInterrupt


def _open_tracker(name: str, folder: Path, done: int, as_json: bool) -> RunTracker:
    """A tracker that has the settings of the run, and takes its events."""
    from ddpo.trainer.monitoring.tracking import RunTracker, open_tracker
    from ddpo.trainer.run.folder import RunFolder

    tracker = open_tracker(name, folder, done)
    if not is_quiet():
        echo(f"{name}: {tracker.address}", err=as_json)
    return RunTracker(name, tracker, RunFolder.open(folder).config().to_dict())
