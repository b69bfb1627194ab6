"""Programs in processes forked from one that has loaded PyTorch: they start at once.

A new interpreter loads PyTorch, diffusers and transformers for five seconds. Tests of kills,
signals and locks need processes of their own, but no new interpreters. Tests of what an interpreter
loads, finds and reads as it starts have to start one.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import resource
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
PROGRAM: Final = ROOT / "ddpo" / "__main__.py"
PR_SET_CHILD_SUBREAPER: Final = 36  # prctl(2)
LARGEST_REQUEST: Final = 1 << 17  # bytes
LIMIT: Final = 3600.0  # seconds after which a program counts as hung
MODULES: Final = (
    "ddpo.cli.main",
    "ddpo.eval.runner",
    "ddpo.rewards.image_files",
    "ddpo.trainer.loop",
    "ddpo.trainer.run.export",
    "diffusers.loaders",
    "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion",
    "peft",
    "transformers.models.clip.modeling_clip",
)
"""Modules that commands load. PyArrow is not among them: it starts a thread."""


class WarmProcess:
    """A program as a child of this process, with the methods of `Popen`.

    Its standard input is empty, and it takes Ctrl-C as in a shell's foreground.

    Args:
        command: a file of Python and its arguments.
        cwd: its working folder.
        env: all variables of its environment.
        merged: its standard error goes to its standard output.
        limits: limit of `resource` → its value.
    """

    def __init__(
        self,
        command: Sequence[str],
        cwd: Path,
        env: Mapping[str, str],
        merged: bool,
        limits: Mapping[int, int],
    ) -> None:
        reading, writing = os.pipe()
        errors_reading, errors_writing = os.pipe()
        self.stdout = os.fdopen(reading, encoding="utf-8")
        self.stderr = os.fdopen(errors_reading, encoding="utf-8")
        self.returncode: int | None = None
        request = {
            "command": list(command),
            "cwd": str(cwd),
            "env": dict(env),
            "limits": list(limits.items()),
        }
        try:
            outputs = [writing, writing if merged else errors_writing]
            self.pid = _fork(json.dumps(request).encode(), outputs)
        finally:
            os.close(writing)
            os.close(errors_writing)

    def __enter__(self) -> WarmProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stdout.close()
        self.stderr.close()
        self.wait()

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while the process runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float = LIMIT) -> int:
        """The exit code, after at most `timeout` seconds."""
        end = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            time.sleep(0.005)
        return code

    def communicate(self, timeout: float = LIMIT) -> tuple[str, str]:
        """The rest of the output and of the errors, after the end of the process."""
        errors: list[str] = []
        reader = threading.Thread(target=lambda: errors.append(self.stderr.read()), daemon=True)
        reader.start()
        timer = threading.Timer(timeout, self.kill)
        timer.start()
        output = self.stdout.read()
        reader.join()
        timer.cancel()
        self.wait()
        self.stdout.close()
        self.stderr.close()
        return output, errors[0]

    def send_signal(self, number: int) -> None:
        """Sends a signal, unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Sends SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Sends SIGKILL."""
        self.send_signal(signal.SIGKILL)


Process = WarmProcess | subprocess.Popen[str]


def start_program(
    program: Path,
    *words: object,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    merged: bool = False,
    limits: Mapping[int, int] = MappingProxyType({}),
) -> Process:
    """Starts a program in a process of its own; a new interpreter where Linux is missing.

    Args:
        program: a file of Python.
        words: its arguments.
        cwd: its working folder; this process's by default.
        env: all variables of its environment; this process's by default.
        merged: its standard error goes to its standard output.
        limits: limit of `resource` → its value.
    """
    command = [str(word) for word in (program, *words)]
    folder = cwd or Path.cwd()
    variables = dict(os.environ if env is None else env)
    if sys.platform == "linux":
        return WarmProcess(command, folder, variables, merged, limits)
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=folder,
        env=variables | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if merged else subprocess.PIPE,
        text=True,
        preexec_fn=lambda: _prepare(limits.items()),
    )


def start_ddpo(*words: object, **options: Any) -> Process:
    """Starts `python -m ddpo` with arguments; the options are `start_program`'s."""
    return start_program(PROGRAM, *words, **options)


def run_program(program: Path, *words: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs a program to its end; the options are `start_program`'s."""
    process = start_program(program, *words, **options)
    output, errors = process.communicate()
    return subprocess.CompletedProcess(list(map(str, words)), process.wait(), output, errors)


def run_ddpo(*words: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs `python -m ddpo` to its end; the options are `start_program`'s."""
    return run_program(PROGRAM, *words, **options)


def _fork(request: bytes, outputs: Sequence[int]) -> int:
    """The number of a new child of this process.

    Its parent dies at once, so that the kernel gives it to the nearest ancestor that is a
    "subreaper": this process, for as long as that takes.
    """
    channel, _ = _server()
    _adopt_orphans(True)
    try:
        socket.send_fds(channel, [request], list(outputs))
        return int(channel.recv(32))
    finally:
        _adopt_orphans(False)


def _adopt_orphans(on: bool) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, int(on), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


@cache
def _server() -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """A process that forks, and a channel to it; it ends when this process closes the channel."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__)), str(there.fileno())],
        env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},  # read once, at imports
        pass_fds=[there.fileno()],
        stdin=subprocess.DEVNULL,
    )
    there.close()
    assert here.recv(32) == b"ready", "the process that forks did not start"
    return here, process


def _prepare(limits: Iterable[tuple[int, int]]) -> None:
    """Sets the new process's limits and its answer to Ctrl-C."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for limit, value in limits:
        resource.setrlimit(limit, (value, value))


def _become(request: dict[str, Any], outputs: Sequence[int]) -> None:
    """Gives this process the streams, folder, variables and arguments of a request."""
    for number, output in enumerate(outputs, 1):
        os.dup2(output, number)
        os.close(output)
    os.environ.clear()
    os.environ.update(request["env"])
    at_once = bool(os.environ.get("PYTHONUNBUFFERED"))
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stdout.reconfigure(write_through=at_once)
    sys.stderr = os.fdopen(2, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)
    sys.__stdout__ = sys.stdout  # type: ignore[misc]
    sys.__stderr__ = sys.stderr  # type: ignore[misc]
    os.chdir(request["cwd"])
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.argv = request["command"]
    sys.path[:0] = [str(Path(sys.argv[0]).parent), *filter(None, paths)]
    importlib.invalidate_caches()
    _prepare(request["limits"])


def _serve(channel: socket.socket) -> bool:
    """Forks a child for each request; True in a child, False after the last request."""
    channel.send(b"ready")
    while True:
        request, outputs, _, _ = socket.recv_fds(channel, LARGEST_REQUEST, 2)
        if not request:
            return False
        assert len(os.listdir("/proc/self/task")) == 1, "threads do not survive a fork"
        reading, writing = os.pipe()
        middle = os.fork()
        if not middle:
            child = os.fork()
            if child:
                os.write(writing, str(child).encode())
                os._exit(0)
            for descriptor in (reading, writing, channel.detach()):
                os.close(descriptor)
            _become(json.loads(request), outputs)
            return True
        os.waitpid(middle, 0)  # from here on the child belongs to the process that asked for it
        channel.send(os.read(reading, 32))
        for descriptor in (reading, writing, *outputs):
            os.close(descriptor)


def _main(number: int) -> None:
    """Loads the packages, then forks; the children run their program and end as any other."""
    sys.path[0] = str(ROOT)
    for name in MODULES:
        importlib.import_module(name)
    gc.freeze()
    if _serve(socket.socket(fileno=number)):
        runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    _main(int(sys.argv[1]))
