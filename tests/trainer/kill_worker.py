"""A run in a process of its own that is killed again and again; a program, for test_resume.py.

    python kill_worker.py CONFIG OUT SEED KILLS

trains OUT/straight without a pause and OUT/killed with KILLS kills, each at a random file that it
touches or at a random time. The parent loads the packages once and forks, so that a run starts at
once. It calls nothing of PyTorch, whose threads do not survive a fork.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import diffusers.loaders  # noqa: F401  # loaded before the forks
import peft  # noqa: F401

from ddpo.trainer import config_from_dict
from ddpo.trainer.loop import resume, train

TOUCHES = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir")


def start(run: Callable[[], Iterable[object]], out: Path, touches: int | None = None) -> int:
    """Runs in a new process, which kills itself when it has touched so many files of `out`."""
    pid = os.fork()
    if pid:
        return pid
    left = [-1 if touches is None else touches]

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if event in TOUCHES and str(arguments[0]).startswith(str(out)):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    code = 1
    try:
        for _ in run():
            pass
        code = 0
    finally:
        os._exit(code)


def ended(pid: int) -> int:
    """Waits; the exit code, or minus the signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main(config_file: str, folder: str, seed: str, kills: str) -> None:
    """Prints how many kills there were: by time, by file, and before there was a run."""
    config = config_from_dict(json.loads(Path(config_file).read_text(encoding="utf-8")))
    straight = Path(folder) / "straight"
    killed = Path(folder) / "killed"
    random_ = random.Random(int(seed))
    started = time.monotonic()
    if ended(start(lambda: train(config, straight), straight)):
        sys.exit("the straight run failed")
    seconds = time.monotonic() - started
    counts = {"time": 0, "file": 0}
    while True:
        kind = (
            random_.choice(sorted(counts)) if sum(counts.values()) else "file"
        )  # a fast run ends before a kill by time
        more = sum(counts.values()) < int(kills)
        begun_already = (killed / "config.json").exists()
        touches = random_.randrange(1, 30) if more and kind == "file" else None
        work = partial(resume, killed) if begun_already else partial(train, config, killed)
        pid = start(work, killed, touches)
        if more and kind == "time":
            time.sleep(random_.uniform(0.2, 0.7) * seconds)
            os.kill(pid, signal.SIGKILL)
        code = ended(pid)
        if code == 0:
            break
        if code != -signal.SIGKILL:
            sys.exit(f"a resumed run failed: {code}")
        counts[kind] += 1
        if not (killed / "config.json").exists():
            for path in killed.iterdir() if killed.exists() else ():
                path.unlink()  # there was no run yet
    print(json.dumps(counts))  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
