"""The terminal's side of all commands: tables, markup, progress, warnings, silenced libraries.

Rich, transformers and diffusers are imported when they are used, so that `ddpo --help` stays quick.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from ddpo.cli.verbosity import is_quiet
from ddpo.io.finite import finite
from ddpo.text import CONTROLS, without_controls

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from ddpo.inputs.collection import ImageSource

__all__ = [
    "add_number_columns",
    "echo",
    "escape",
    "image_progress",
    "new_console",
    "note",
    "note_console",
    "one_line_warnings",
    "print_json",
    "print_json_text",
    "print_left_out",
    "quiet_libraries",
    "silent_writer_threads",
    "simple_table",
]


def new_console(**options: Any) -> Console:
    """A console of rich that prints no control character but its own.

    Args:
        options: Arguments of `rich.console.Console`.
    """
    from ddpo.cli.terminal import Terminal

    return Terminal(**options)


def echo(text: object, *, err: bool = False, fg: str | None = None) -> None:
    """Prints a text without markup to standard output or standard error; controls are escaped."""
    typer.secho(without_controls(str(text)), err=err, fg=fg)


def note(text: object) -> None:
    """Prints a note on standard error, unless the command is quiet."""
    if not is_quiet():
        echo(f"note: {text}", err=True)


def note_console(*, stderr: bool = True, **options: Any) -> Console:
    """A console for progress and notes, which prints nothing if the command is quiet.

    Args:
        stderr: False for standard output.
        options: Further arguments of `rich.console.Console`.
    """
    return new_console(stderr=stderr, quiet=is_quiet(), **options)


def print_json(value: Any, indent: int | None = 2) -> None:
    """Prints a value as JSON, which stays JSON in every encoding of standard output.

    NaN and infinity, which JSON does not allow, become null.

    Args:
        value: Plain nested values.
        indent: Number of spaces per level; None for one line, which is flushed.
    """
    print_json_text(json.dumps(finite(value), indent=indent, ensure_ascii=False, allow_nan=False))


def print_json_text(text: str) -> None:
    """Prints JSON whose controls, and characters that the output cannot encode, are escaped."""
    shown = CONTROLS.sub(_as_json_escape, text)
    try:
        shown.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        shown = re.sub(r"[^\x00-\x7f]", _as_json_escape, shown)
    typer.echo(shown)
    sys.stdout.flush()


def _as_json_escape(found: re.Match[str]) -> str:
    return json.dumps(found[0])[1:-1]


def escape(text: str) -> str:
    """The text of a user or plug-in without controls, and protected from rich's markup."""
    from rich.markup import escape as escape_markup

    return escape_markup(without_controls(text))


def simple_table(*headers: str, **options: Any) -> Table:
    """An empty table whose only rule is the one below its header.

    Args:
        headers: Names of left-aligned columns that may wrap.
        options: Further arguments of `rich.table.Table`.
    """
    from rich import box
    from rich.table import Table

    return Table(*headers, box=box.SIMPLE_HEAD, pad_edge=False, **options)


def add_number_columns(table: Table, names: Iterable[str]) -> None:
    """Appends right-aligned columns that do not wrap."""
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)


def print_left_out(console: Console, images: ImageSource) -> None:
    """Prints the number of files beside the images that were not read, if there were any."""
    from ddpo.inputs.image_files import left_out_sentence

    sentence = left_out_sentence(images.left_out)
    if sentence and not is_quiet():
        console.print(escape(sentence), soft_wrap=True, highlight=False)


@contextmanager
def image_progress(title: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A progress bar on standard error that disappears at the end; a terminal alone shows it.

    Yields:
        A function that takes the number of images finished since its last call.

    Args:
        title: Text before the bar.
        total: Number of images; None if it is not known.
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:.1f} images/s" if task.speed else "")

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
    )
    console = note_console()
    hidden = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as progress:
        task = progress.add_task(escape(title), total=total)
        yield lambda done: progress.advance(task, done)


@contextmanager
def one_line_warnings() -> Iterator[None]:
    """A block whose warnings are one line each on standard error, without their place in the code.

    Pillow's warnings about damaged metadata are left out: they do not name the file, and an image
    that cannot be read is reported by itself.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
        warnings.showwarning = lambda message, *_, **__: _warn(message)
        yield


def _warn(message: object) -> None:
    if not is_quiet():
        echo(f"warning: {message}", fg="yellow", err=True)


def quiet_libraries() -> None:
    """Silences loading bars and advice of the libraries; called before a command loads a model."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from diffusers.utils import logging as diffusers_logging
    from transformers import dynamic_module_utils
    from transformers.utils import logging as transformers_logging

    dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0  # it would ask whether to run a model's own code
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()
    for name in ("torch", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.ERROR)


@contextmanager
def silent_writer_threads() -> Iterator[None]:
    """A block without tracebacks of TensorBoard's writer thread, whose next call raises them."""
    before = threading.excepthook

    def report(arguments: threading.ExceptHookArgs) -> None:
        if not type(arguments.thread).__module__.startswith("tensorboard."):
            before(arguments)

    threading.excepthook = report
    try:
        yield
    finally:
        threading.excepthook = before
