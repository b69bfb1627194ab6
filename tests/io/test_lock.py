"""One owner: the other is refused in one line that names the first; a kill frees the lock."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ddpo.errors import RunExistsError
from ddpo.io.lock import Ownership, owned
from ddpo.io.reading import in_use, reading

HOLD = """
import sys, time
from pathlib import Path
from ddpo.io.lock import owned
with owned(Path(sys.argv[1]), Path("runs/one"), "ddpo train", "wait"):
    print("held", flush=True)
    time.sleep(600)
"""

RACE = """
import sys, time
from pathlib import Path
from ddpo.errors import RunExistsError
from ddpo.io.lock import owned
lock, counter = Path(sys.argv[1]), Path(sys.argv[2])
entered = 0
while entered < 50:
    try:
        with owned(lock, lock, "ddpo", "wait"):
            before = int(counter.read_text())
            counter.write_text(str(before + 1))
            entered += 1
    except RunExistsError:
        time.sleep(0.001)
"""


def holder(lock: Path) -> subprocess.Popen[str]:
    """A process that owns."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(lock)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def refused(lock: Path) -> str:
    with pytest.raises(RunExistsError) as error:
        Ownership(lock, Path("runs/one"), "ddpo eval", "choose another --out")
    return str(error.value)


def test_the_second_is_told_who_the_first_is_and_a_kill_frees_the_lock(tmp_path: Path) -> None:
    lock = tmp_path / "runs" / ".lock"
    process = holder(lock)
    line = refused(lock)
    assert re.fullmatch(
        rf"runs/one is in use by ddpo train, process {process.pid} on \S+, "
        r"since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d \w+: choose another --out",
        line,
    )
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert lock.exists(), "what a kill leaves"
    with owned(lock, lock, "ddpo", "wait"):
        assert f"process {os.getpid()}" in lock.read_text()
    assert not lock.exists()


def test_one_process_owns_once_and_again_after_release(tmp_path: Path) -> None:
    first = Ownership(tmp_path / "lock", tmp_path, "ddpo train", "wait")
    assert f"process {os.getpid()}" in refused(tmp_path / "lock")
    first.release()
    first.release()
    second = Ownership(tmp_path / "lock", tmp_path, "ddpo train", "wait")
    first.release()  # which no longer is the owner
    refused(tmp_path / "lock")
    second.release()


def test_what_is_forgotten_is_released(tmp_path: Path) -> None:
    Ownership(tmp_path / "lock", tmp_path, "ddpo train", "wait")
    with owned(tmp_path / "lock", tmp_path, "ddpo", "wait"):
        pass


def test_never_two_owners_at_a_time(tmp_path: Path) -> None:
    """Locks are removed at release, which must not let two in: one with the old file, one new."""
    lock = tmp_path / "lock"
    counter = tmp_path / "counter"
    counter.write_text("0")
    processes = [
        subprocess.Popen([sys.executable, "-c", RACE, str(lock), str(counter)]) for _ in range(3)
    ]
    assert [process.wait(timeout=120) for process in processes] == [0, 0, 0]
    assert counter.read_text() == "150"


def test_what_is_in_a_lock_file_cannot_harm_a_terminal(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    process = holder(lock)
    lock.write_text("\x1b[31mddpo\ntrain" + "x" * 10_000)
    line = refused(lock)
    assert line.isprintable()
    assert len(line) < 500
    lock.write_text("")
    assert "in use by another process" in refused(lock)
    process.kill()
    process.wait()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_can_be_read_by_all(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with (
        owned(tmp_path / "lock", tmp_path, "ddpo", "wait"),
        owned(tmp_path / "lock", tmp_path, "ddpo", "wait"),
    ):
        pass


def test_a_file_is_in_use_while_anyone_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    assert not in_use(path)
    path.write_text("{}")
    with reading(path):
        with reading(path):
            assert in_use(path)
        assert in_use(path)
    assert not in_use(path)
    with reading(tmp_path / "absent"):
        assert not in_use(tmp_path / "absent")


def test_a_reader_that_is_killed_does_not_hold_a_file_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    path.write_text("{}")
    process = multiprocessing.get_context("fork").Process(target=_read_for_ever, args=(path,))
    process.start()
    until = time.monotonic() + 30
    while not in_use(path) and time.monotonic() < until:
        time.sleep(0.01)
    assert in_use(path)
    process.kill()
    process.join()
    assert not in_use(path)


def _read_for_ever(path: Path) -> None:
    with reading(path):
        time.sleep(600)
