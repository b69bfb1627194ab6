"""Several processes, some of them killed, at one cache: no stored score is lost or wrong."""

from __future__ import annotations

import hashlib
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from ddpo.rewards.cache import CachedScore, ScoreCache, database

BATCH = 16

# Prints the number of a batch when its `put` has returned. The key holds its score, so that a wrong
# one shows.
WRITER = """
import hashlib, sys
from pathlib import Path
from ddpo.rewards.cache import CachedScore, ScoreCache

path, writer, batches, limit_mb = sys.argv[1:]
cache = ScoreCache(Path(path), float(limit_mb))
for batch in range(int(batches)):
    keys = [hashlib.sha256(f"{writer} {batch} {place}".encode()).digest() for place in range(16)]
    scores = [CachedScore(float(k[0] * 256 + k[1]), {"part": float(k[2])}) for k in keys]
    items = list(zip(keys, scores))
    assert cache.put("r", f"identity {writer}", items) == 16, batch
    sys.stdout.write(f"{batch}\\n")
    sys.stdout.flush()
print("done")
"""


def keys_of(writer: str, batch: int) -> list[bytes]:
    return [hashlib.sha256(f"{writer} {batch} {place}".encode()).digest() for place in range(BATCH)]


def score_of(key: bytes) -> CachedScore:
    return CachedScore(float(key[0] * 256 + key[1]), {"part": float(key[2])})


def start(
    path: Path, writer: str, batches: int, limit_mb: float = 64.0, warnings: str = "error"
) -> subprocess.Popen[str]:
    arguments = [str(path), writer, str(batches), str(limit_mb)]
    command = [sys.executable, "-W", warnings, "-c", WRITER, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(process: subprocess.Popen[str]) -> tuple[list[int], str]:
    """The batches that a writer reported as stored, and its standard error."""
    out, err = process.communicate(timeout=60)
    return [int(line) for line in out.split("\n")[:-1] if line.isdigit()], err


def test_four_processes_write_together(tmp_path: Path) -> None:
    path = tmp_path / "scores.sqlite"
    writers = {name: start(path, name, 200) for name in ("a", "b", "c", "shared")} | {
        "shared again": start(path, "shared", 200)
    }
    for process in writers.values():
        batches, err = finished(process)
        assert err == ""
        assert batches == list(range(200))
    with ScoreCache(path) as cache:
        for writer in ("a", "b", "c", "shared"):
            for batch in range(200):
                keys = keys_of(writer, batch)
                assert cache.get(keys) == {key: score_of(key) for key in keys}
        assert {entry.identity: entry.scores for entry in cache.stats().entries} == {
            f"identity {writer}": 200 * BATCH for writer in ("a", "b", "c", "shared")
        }
        assert cache.stats().damaged == ()


def test_twenty_kills_lose_no_stored_score(tmp_path: Path) -> None:
    """Five rounds of four writers at one file, each killed at a random moment."""
    path = tmp_path / "scores.sqlite"
    chance = random.Random(1)
    stored: list[tuple[str, int]] = []
    for round_number in range(5):
        names = [f"{round_number}-{number}" for number in range(4)]
        processes = [start(path, name, 10**6) for name in names]
        for process in processes:  # all are at work before the first is killed
            assert process.stdout is not None
            assert process.stdout.readline() == "0\n"
        for process in processes:
            time.sleep(chance.uniform(0.0, 0.03))
            process.send_signal(signal.SIGKILL)
        for name, process in zip(names, processes, strict=True):
            batches, err = finished(process)
            assert (err, process.returncode) == ("", -signal.SIGKILL)
            stored += [(name, batch) for batch in [0, *batches]]
    assert len(stored) >= 20
    with ScoreCache(path) as cache:
        for name, batch in stored:
            keys = keys_of(name, batch)
            assert cache.get(keys) == {key: score_of(key) for key in keys}
        unfinished = [
            keys_of(name, 1 + max(batch for other, batch in stored if other == name))
            for name in {name for name, _ in stored}
        ]
        for keys in unfinished:  # in whole or not at all
            assert cache.get(keys) in ({}, {key: score_of(key) for key in keys})
        assert cache.stats().damaged == ()


def test_kills_while_old_scores_are_removed_leave_a_sound_file(tmp_path: Path) -> None:
    path = tmp_path / "scores.sqlite"
    chance = random.Random(2)
    for round_number in range(3):
        processes = [
            start(path, f"{round_number}-{number}", 10**6, limit_mb=0.1) for number in range(2)
        ]
        for process in processes:
            assert process.stdout is not None
            while process.stdout.readline() != "40\n":  # 640 scores: over the limit
                pass
        for process in processes:
            time.sleep(chance.uniform(0.0, 0.03))
            process.send_signal(signal.SIGKILL)
            assert finished(process)[1] == ""
    with ScoreCache(path, limit_mb=0.1) as cache:
        assert cache._connected().execute("PRAGMA integrity_check").fetchall() == [(b"ok",)]
        cache.put("r", "last", [(bytes(32), CachedScore(1.0, {}))])
        assert cache.stats().bytes <= cache.limit_bytes
        assert 0 < cache.stats().scores < 1500


def test_a_process_that_finds_no_cache_does_not_wait_until_others_are_idle(tmp_path: Path) -> None:
    """Busy processes always hold the shared lock, so that the exclusive one is never free."""
    path = tmp_path / "scores.sqlite"
    stored: list[int] = []
    with ScoreCache(path) as cache, database.locked(path):
        items = [(bytes(32), CachedScore(1.0, {}))]
        put = threading.Thread(target=lambda: stored.append(cache.put("r", "i", items)))
        put.start()
        time.sleep(0.5)
        assert stored == []
        database.create_database(path)  # as another process does
        put.join(5)
        assert stored == [1]


def test_a_damaged_file_is_set_aside_by_one_of_several_processes(tmp_path: Path) -> None:
    path = tmp_path / "scores.sqlite"
    path.write_bytes(b"garbage" * 1000)
    writers = {name: start(path, name, 20, warnings="always") for name in ("a", "b", "c", "d")}
    said = ""
    for process in writers.values():
        batches, err = finished(process)
        assert batches == list(range(20))
        said += err
    assert said.count("CacheWarning: ") == 1
    with ScoreCache(path) as cache:
        (damaged,) = cache.stats().damaged
        assert damaged.read_bytes() == b"garbage" * 1000
        for writer in writers:
            keys = [key for batch in range(20) for key in keys_of(writer, batch)]
            assert cache.get(keys) == {key: score_of(key) for key in keys}
