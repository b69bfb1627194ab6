"""Counts our frames between collecting a rollout and the user's reward function, in a real run.

    python tools/house_frames.py CHECKOUT

One iteration of the embedded model with a reward function from a file, which looks at
its own stack. The stack of a thread follows the stack that started the thread.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import traceback
from pathlib import Path

REWARD = """
import builtins

def brightness(images):
    builtins.house_frames.append(builtins.house_stack())
    return [float(image.mean()) for image in images]
"""
SETTINGS = {
    "iterations": 1,
    "sample": {"samples": 4, "per_prompt": 2, "batch": 2, "steps": 2},
    "optim": {"updates": 1, "timesteps": 1},
}

Stack = list[tuple[str, int, str]]


def stack() -> Stack:
    """File, line and function of each frame, outermost first; a thread's follow its starter's."""
    found = traceback.extract_stack()[:-1]
    frames = [(frame.filename, frame.lineno or 0, frame.name) for frame in found]
    return getattr(threading.current_thread(), "house_starter", []) + frames


def remember_starters() -> None:
    """Makes every thread remember the stack that started it."""
    start = threading.Thread.start

    def start_and_remember(thread: threading.Thread) -> None:
        thread.house_starter = stack()  # type: ignore[attr-defined]
        start(thread)

    threading.Thread.start = start_and_remember  # type: ignore[method-assign]


def between(frames: Stack, package: Path) -> Stack:
    """Our frames after the last one in trainer/rollout.py and before the user's function.

    Comprehensions do not count: Python 3.12 gives them no frame.
    """
    rollout = str(package / "trainer" / "rollout.py")
    last = max(i for i, frame in enumerate(frames) if frame[0] == rollout)
    return [
        (file, line, name)
        for file, line, name in frames[last + 1 : -1]
        if Path(file).is_relative_to(package) and not name.endswith("comp>")
    ]


def main() -> int:
    """Trains once and prints the frames, outermost first."""
    import builtins

    checkout = Path(sys.argv[1]).resolve()
    sys.path.insert(0, str(checkout))
    from ddpo.trainer import config_for, train

    found: list[Stack] = []
    builtins.house_frames = found  # type: ignore[attr-defined]
    builtins.house_stack = stack  # type: ignore[attr-defined]
    remember_starters()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "reward.py"
        file.write_text(REWARD, encoding="utf-8")
        config = config_for({"reward": f"{file}:brightness", **SETTINGS})
        for _ in train(config, Path(folder) / "run"):
            pass
    longest = max((between(frames, checkout / "ddpo") for frames in found), key=len)
    for file_name, line, function in longest:
        print(Path(file_name).relative_to(checkout), line, function, sep="\t")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
