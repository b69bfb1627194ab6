"""The content of a lock file: one line about its owner for people, and one for programs."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import Any, Final

from ddpo.io.atomic import printable
from ddpo.io.json_files import JsonError, parse_record
from ddpo.io.process import boot_id, here, is_gone, start_time

__all__ = ["FLAGS", "has_ended", "own_name", "owner_of", "record_of", "text_of"]

FLAGS: Final = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
"""Flags of `os.open` for a lock file. A link is not followed, and a pipe is not waited for."""

NAME_BYTES: Final = 600  # read of a lock file: a line for people and one for programs


def has_ended(text: str) -> bool:
    """True if the process that a lock file names ran on this host and has ended."""
    record = record_of(text)
    if record.get("host") != here() and record.get("name") != socket.gethostname():
        return False
    if boot_id() and record.get("boot") not in ("", None, boot_id()):
        return True
    same_numbers = record.get("host") == here()
    return same_numbers and is_gone(int(record["process"]), str(record.get("started", "")))


def record_of(text: str) -> dict[str, Any]:
    """The line for programs in a lock file; {} in those of older versions."""
    try:
        record = parse_record(text.partition("\n")[2] or "{}")
    except JsonError:
        return {}
    return record if isinstance(record.get("process"), int) else {}


def own_name(command: str) -> str:
    since = time.strftime("%Y-%m-%d %H:%M:%S %Z")
    name = socket.gethostname()
    process = os.getpid()
    record = {
        "host": here(),
        "name": name,
        "boot": boot_id(),
        "process": process,
        "started": start_time(process),
    }
    return f"{command}, process {process} on {name}, since {since}\n{json.dumps(record)}\n"


def text_of(lock: Path) -> str:
    """The content of a lock file; "" if it cannot be read."""
    try:
        descriptor = os.open(lock, os.O_RDONLY | (FLAGS & ~os.O_RDWR))
    except OSError:
        return ""
    try:
        return os.read(descriptor, NAME_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""
    finally:
        os.close(descriptor)


def owner_of(lock: Path) -> str:
    """The line for people in a lock file, safe to print."""
    return printable(text_of(lock).strip().partition("\n")[0][:300]) or "another process"
