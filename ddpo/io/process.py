"""Identities of processes, which separate the files of dead processes from files in use."""

from __future__ import annotations

import hashlib
import os
import socket
from functools import cache
from pathlib import Path

__all__ = ["boot_id", "here", "is_gone", "start_time"]


@cache
def here() -> str:
    """Eight hexadecimal digits for this host and its set of process numbers.

    Containers on one host have process numbers of their own.
    """
    try:
        numbers = os.readlink("/proc/self/ns/pid")
    except OSError:
        numbers = ""
    return hashlib.sha256(f"{socket.gethostname()} {numbers}".encode()).hexdigest()[:8]


@cache
def boot_id() -> str:
    """The identity of the present start of this machine; "" where the system gives none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""


def start_time(process: int) -> str:
    """The time since boot at which a process started, in clock ticks; "" where it is unknown.

    Source: proc_pid_stat(5), field 22. The name in field 2 may hold blanks and parentheses.
    """
    try:
        text = Path(f"/proc/{process}/stat").read_text("ascii", "replace")
    except OSError:
        return ""
    return text.rpartition(")")[2].split()[19]


def is_gone(process: int, started: str = "") -> bool:
    """True if a process of this host has ended, or another one has its number now.

    Args:
        process: process number, in the set of numbers of this process.
        started: its `start_time`; "" if unknown.
    """
    if process < 1 or os.name == "nt":  # where signal 0 would end it
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:  # of another user
        pass
    return bool(started) and start_time(process) not in ("", started)
