"""One owner: the other is refused in one line that names the first; a kill frees the lock."""

from __future__ import annotations

import errno
import fcntl
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ddpo.errors import CheckpointError, RunExistsError, StorageFailure
from ddpo.io import lock as lock_module
from ddpo.io.lock import LockWarning, Ownership, owned, owned_file, turn
from ddpo.io.lock_file import own_name
from ddpo.io.reading import in_use, reading, unused

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
from ddpo.errors import CheckpointError, RunExistsError, StorageFailure
from ddpo.io import lock as lock_module
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


@pytest.mark.parametrize("kind", ["folder", "link", "dangling link", "pipe"])
def test_something_else_in_place_of_a_lock_is_named_and_left_alone(
    tmp_path: Path, kind: str
) -> None:
    lock = tmp_path / ".lock"
    mine = tmp_path / "mine"
    if kind == "folder":
        lock.mkdir()
    elif kind == "pipe":
        os.mkfifo(lock)
    else:
        if kind == "link":
            mine.write_text("mine")
        lock.symlink_to(mine)
    with pytest.raises(StorageFailure, match=r"\.lock is a link, a folder or a device instead"):
        Ownership(lock, tmp_path, "ddpo train", "wait")
    assert lock.is_symlink() or lock.exists()
    assert mine.exists() == (kind == "link")
    assert not mine.exists() or mine.read_text() == "mine"


def test_a_forked_child_neither_holds_nor_frees_the_lock(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    with owned(lock, tmp_path, "ddpo train", "wait"):
        if (process := os.fork()) == 0:
            try:
                sys.exit(0)  # which ends the block in the child too
            finally:
                os._exit(0)
        os.waitpid(process, 0)
        assert "in use by ddpo train" in refused(lock)
        child.start()
    try:
        with owned(lock, tmp_path, "ddpo eval", "wait"):
            assert child.is_alive()
    finally:
        child.kill()
        child.join()


def test_a_lock_that_was_removed_by_hand_and_made_by_another_stays(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    first = Ownership(lock, tmp_path, "ddpo train", "wait")
    lock.unlink()
    second = Ownership(lock, tmp_path, "ddpo eval", "wait")
    first.release()
    assert "in use by ddpo eval" in refused(lock)
    second.release()


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without locks, which cannot be mounted in a test."""

    def flock(descriptor: int, mode: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr(lock_module, "EMPTY_SECONDS", 0.1)


@pytest.mark.usefixtures("no_locks")
def test_without_locks_the_file_is_the_lock(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    with pytest.warns(LockWarning, match="without locks: if a host fails"):
        first = Ownership(lock, tmp_path, "ddpo train", "wait")
    assert f"in use by ddpo train, process {os.getpid()} on" in refused(lock)
    with reading(tmp_path / ".lock"):
        assert not in_use(tmp_path / ".lock")
    first.release()
    assert not lock.exists()
    with owned(lock, tmp_path, "ddpo", "wait"):
        pass


def written_by(change: dict[str, object]) -> str:
    """What an owner writes, with changes."""
    line, record = own_name("ddpo train").splitlines()
    return line + "\n" + json.dumps(json.loads(record) | change) + "\n"


@pytest.mark.usefixtures("no_locks")
@pytest.mark.filterwarnings("ignore::ddpo.io.lock.LockWarning")
@pytest.mark.parametrize(
    ("change", "taken"),
    [
        ({}, True),  # of this process, which runs
        ({"process": 2**22 + 1}, False),
        ({"started": "1"}, False),  # another process with an old number
        ({"boot": "before"}, False),
        ({"host": "00000000", "name": "elsewhere", "process": 2**22 + 1}, True),
        ({"host": "00000000", "process": 2**22 + 1}, True),  # another container of this host
        ({"host": "00000000", "boot": "before"}, False),
    ],
)
def test_without_locks_only_a_process_that_has_ended_is_followed(
    tmp_path: Path, change: dict[str, object], taken: bool
) -> None:
    lock = tmp_path / ".lock"
    lock.write_text(written_by(change))
    if taken:
        assert "in use by ddpo train" in refused(lock)
        assert lock.read_text() == written_by(change)
        return
    with owned(lock, tmp_path, "ddpo eval", "wait"):
        assert lock.read_text().startswith("ddpo eval")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("no_locks")
@pytest.mark.filterwarnings("ignore::ddpo.io.lock.LockWarning")
@pytest.mark.parametrize("text", ["", "ddpo train, process 7 on somewhere\n", "ddpo\n{[\n"])
def test_without_locks_a_lock_that_names_nobody(tmp_path: Path, text: str) -> None:
    (tmp_path / ".lock").write_text(text)
    if text:
        assert "in use by ddpo" in refused(tmp_path / ".lock")
    else:  # of a process that was killed before it wrote its name
        with owned(tmp_path / ".lock", tmp_path, "ddpo", "wait"):
            pass


def test_a_lock_that_another_host_left_is_taken_with_a_warning(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    lock.write_text(written_by({"host": "00000000", "name": "elsewhere"}))
    with (
        pytest.warns(LockWarning, match="was in use by ddpo train, .* if it still runs, stop one"),
        owned(lock, tmp_path, "ddpo train", "wait"),
    ):
        pass


def test_an_output_has_one_owner_by_any_path(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with (
        owned_file(tmp_path / "real" / "t.csv", "ddpo rewards score"),
        pytest.raises(RunExistsError, match="in use by ddpo rewards score"),
        owned_file(tmp_path / "link" / "t.csv", "ddpo rewards score"),
    ):
        pass
    assert list((tmp_path / "real").iterdir()) == []
    with owned_file(None, "ddpo"):
        pass


def test_turns_are_one_after_the_other(tmp_path: Path) -> None:
    process = multiprocessing.get_context("fork").Process(target=_hold_turn, args=(tmp_path,))
    process.start()
    while not (tmp_path / "held").exists():
        time.sleep(0.01)
    with turn(tmp_path) as alone:
        assert alone
        assert (tmp_path / "done").exists()
    process.join()


def _hold_turn(folder: Path) -> None:
    with turn(folder):
        (folder / "held").touch()
        time.sleep(0.3)
        (folder / "done").touch()


def test_a_reader_waits_for_a_remover_and_names_what_was_removed(tmp_path: Path) -> None:
    path = tmp_path / "iteration-000001" / "policy.json"
    path.parent.mkdir()
    path.write_text("{}")
    with unused(path) as free:
        assert free
        process = multiprocessing.get_context("fork").Process(target=_read_removed, args=(path,))
        process.start()
        time.sleep(0.3)
        path.parent.rename(tmp_path / "removed")
    process.join()
    assert process.exitcode == 0


def _read_removed(path: Path) -> None:
    with pytest.raises(CheckpointError, match="was just removed or replaced"), reading(path):
        pass
