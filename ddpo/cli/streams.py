"""Standard output and standard error that may be closed, full, cut off or of a poor encoding.

A text on standard output that is lost is an error, as in coreutils. What standard error cannot take
is dropped, so that a lost note or progress bar ends no work.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TextIO

from ddpo.errors import StorageFailure

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["discard_output", "flush_output", "open_standard_streams"]

INPUT: Final = 0
OUTPUT: Final = 1
NOTES: Final = 2
ESCAPES: Final = "backslashreplace"  # undecodable names, and letters outside the encoding


class _Output(io.FileIO):
    """The raw standard output; a failed write is an error that names it."""

    def write(self, data: Buffer, /) -> int:
        try:
            return super().write(data) or 0
        except BrokenPipeError:  # the reader has seen enough, which is nobody's fault
            raise
        except OSError as error:
            reason = error.strerror or str(error)
            raise StorageFailure(f"standard output cannot be written: {reason}") from error


class _Notes(io.FileIO):
    """The raw standard error; a failed write is dropped."""

    def write(self, data: Buffer, /) -> int:
        try:
            return super().write(data) or 0
        except OSError:
            return memoryview(data).nbytes


def open_standard_streams() -> None:
    """Prepares the standard streams of this process.

    A closed one is opened on /dev/null, so that no file that is opened later takes its place. What
    is written to a closed standard output is an error.
    """
    if os.name == "posix" and sys.stdout is sys.__stdout__ and sys.stderr is sys.__stderr__:
        for descriptor in (INPUT, OUTPUT, NOTES):
            _fill(descriptor)
        sys.stdout = _stream(_Output(OUTPUT, "w", closefd=False), sys.stdout)
        sys.stderr = _stream(_Notes(NOTES, "w", closefd=False), sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ESCAPES)


def flush_output() -> None:
    """Writes what waits in standard output.

    Raises:
        StorageFailure: It cannot be written; nothing of it will be tried again.
        BrokenPipeError: Its reader is gone.
    """
    try:
        sys.stdout.flush()
    except OSError:
        discard_output()
        raise


def discard_output() -> None:
    """Drops what waits in standard output, and all that follows."""
    if not isinstance(sys.stdout, io.TextIOWrapper):
        return
    with suppress(OSError):
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, sys.stdout.fileno())
        os.close(nothing)


def _fill(descriptor: int) -> None:
    """Opens a closed descriptor on /dev/null: for reading, which fails for writers of output."""
    try:
        os.fstat(descriptor)
    except OSError as error:
        if error.errno != errno.EBADF:
            raise
        mode = os.O_WRONLY if descriptor == NOTES else os.O_RDONLY
        found = os.open(os.devnull, mode)
        if found != descriptor:
            os.dup2(found, descriptor)
            os.close(found)


def _stream(raw: io.FileIO, before: TextIO | None) -> io.TextIOWrapper:
    """A text stream over a raw one, with the properties of the stream before."""
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=before.encoding if before is not None else "utf-8",
        errors=ESCAPES,
        line_buffering=raw.isatty() or isinstance(raw, _Notes),
        write_through=getattr(before, "write_through", False),
    )
