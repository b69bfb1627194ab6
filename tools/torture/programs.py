"""Commands of ddpo in forked processes: they start at once, and end at a chosen moment.

The parent imports all packages and runs nothing, so that it has one thread when it forks.
"""

from __future__ import annotations

import builtins
import fcntl
import importlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

__all__ = ["Program", "load_packages", "run_program", "watch_operations"]

LIMIT: Final = 600.0  # seconds after which a program counts as hung
POLL: Final = 0.002
EVENTS: Final = (
    "open",
    "os.chmod",
    "os.link",
    "os.mkdir",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.truncate",
)
"""Audit events of Python that name a path first. Source: docs.python.org, "Audit events table"."""
PACKAGES: Final = (
    "diffusers.loaders",
    "peft",
    "pyarrow.parquet",
    "ddpo.cli.main",
    "ddpo.eval.runner",
    "ddpo.rewards.image_files",
    "ddpo.trainer.loop",
    "ddpo.trainer.run.export",
)

Hook = Callable[[], None]
Tear = Callable[[float], Any]


class Program:
    """One command in a process of its own.

    Args:
        words: arguments of `ddpo`.
        folder: current folder of the process; its cache and its output are beneath it.
        before: called in the new process before the command.
        environment: variables to add.
    """

    def __init__(
        self,
        words: list[str],
        folder: Path,
        before: Hook | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.words = words
        self._start = time.monotonic()
        self._code: int | None = None
        reading, writing = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if not self.pid:
            os.close(reading)
            _run_forked(words, folder, writing, before, environment or {})
        os.close(writing)
        os.set_blocking(reading, False)
        self._reading = reading
        self._output = b""

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while the program runs."""
        if self._code is None:
            self._read()
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
                self._read()
                os.close(self._reading)
        return self._code

    def wait(self, seconds: float = LIMIT, number: int = signal.SIGKILL) -> int:
        """The exit code; a signal is sent after some seconds, and SIGKILL after `LIMIT`."""
        sent = False
        while (code := self.poll()) is None:
            passed = time.monotonic() - self._start
            if passed > LIMIT + 30:
                os.kill(self.pid, signal.SIGKILL)
            elif passed > seconds and not sent:
                sent = True
                os.kill(self.pid, number)
            time.sleep(POLL)
        return code

    @property
    def output(self) -> str:
        """Standard output and standard error until now."""
        if self._code is None:
            self._read()
        return self._output.decode("utf-8", "replace")

    def end(self) -> str:
        """The last line of the output, for reports."""
        return (self.output.strip().splitlines() or ["no output"])[-1]

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._reading, 1 << 16)
            except BlockingIOError:
                return
            if not data:
                return
            self._output += data


def run_program(words: list[str], folder: Path, before: Hook | None = None) -> Program:
    """Runs a command to its end."""
    program = Program(words, folder, before)
    program.wait()
    return program


def _run_forked(
    words: list[str],
    folder: Path,
    writing: int,
    before: Hook | None,
    environment: Mapping[str, str],
) -> None:
    """Runs a command in this forked process and ends it."""
    code = 1
    try:
        for descriptor in (1, 2):
            os.dup2(writing, descriptor)
        sys.stdout = os.fdopen(1, "w", buffering=1, encoding="utf-8", closefd=False)
        sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", closefd=False)
        os.chdir(folder)
        os.environ |= {"DDPO_CACHE": str(folder / "cache"), "COLUMNS": "200", **environment}
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.argv = ["ddpo", *words]
        if before is not None:
            before()
        code = _exit_code()
    except BaseException:  # noqa: BLE001  # the parent reads the traceback
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _exit_code() -> int:
    from ddpo.cli.main import main

    try:
        main()
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    return 0


def load_packages() -> None:
    """Imports what the commands need, so that each forked process starts at once."""
    for name in PACKAGES:
        importlib.import_module(name)
    import torch

    torch.set_num_threads(1)


def watch_operations(folder: Path, act: Callable[[Tear], None]) -> None:
    """Calls `act` in this process before each operation on files below a folder.

    Operations are opening, making, renaming, removing, writing by descriptor, and syncing.

    Args:
        folder: the folder.
        act: gets a function that leaves a share of what is being written, as a kill within the
            system call may do; it does nothing for other operations.
    """
    root = str(folder)

    def audit(event: str, args: tuple[Any, ...]) -> None:
        named = event in EVENTS and args and isinstance(args[0], str | bytes | os.PathLike)
        if named and os.path.abspath(os.fsdecode(args[0])).startswith(root):
            act(_nothing)

    def write(descriptor: int, data: Any, /) -> int:
        if descriptor > 2:
            act(lambda share: real_write(descriptor, bytes(data)[: int(share * len(data))]))
        return real_write(descriptor, data)

    def fsync(descriptor: Any, /) -> None:
        act(partial(_cut_last_line, descriptor))
        real_fsync(descriptor)

    real_write = os.write
    real_fsync = os.fsync
    os.write = write
    os.fsync = fsync
    sys.addaudithook(audit)


def _nothing(share: float) -> None:
    """Tears nothing: the operation writes no bytes."""


def _cut_last_line(descriptor: int, share: float) -> None:
    """Leaves a share of the last line of a file that is open for writing."""
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    if not flags & (os.O_WRONLY | os.O_RDWR):
        return
    with builtins.open(f"/proc/self/fd/{descriptor}", "rb") as file:
        data = file.read()
    length = len(data) - (data[:-1].rfind(b"\n") + 1)
    os.ftruncate(descriptor, len(data) - length + int(share * length))
