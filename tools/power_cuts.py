"""Cuts the power of a real file system, on a loop device, while ddpo trains, scores or evaluates.

    python tools/power_cuts.py --filesystem ext4 --work training --tries 20

Needs root, mkfs of the file system, and a kernel that mounts it. The device is shut down by ioctl
without writing its log: what was not synced is lost, as after a power cut. It is then mounted anew,
which replays the log, and what was reported as written is looked for.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

SHUTDOWN: Final = 0x8004587D  # EXT4_IOC_SHUTDOWN and XFS_IOC_GOINGDOWN, _IOR('X', 125, __u32)
WITHOUT_LOG: Final = 2  # EXT4_GOING_FLAGS_NOLOGFLUSH, XFS_FSOP_GOING_FLAGS_NOLOGFLUSH
BYTES: Final = {"ext4": 128 << 20, "xfs": 384 << 20}
PROMPTS: Final = ("a cat", "a dog")
ITERATIONS: Final = 3


class Disk:
    """A file system in a file, which can lose power.

    Args:
        folder: where the file and the mount point go.
        kind: "ext4" or "xfs".
    """

    def __init__(self, folder: Path, kind: str) -> None:
        self.image = folder / "image"
        self.place = folder / "mounted"
        self.mounted = False
        self.place.mkdir()
        with self.image.open("wb") as file:
            file.truncate(BYTES[kind])
        subprocess.run([f"mkfs.{kind}", "-q", self.image], check=True)
        self.mount()

    def mount(self) -> None:
        """Mounts it; what its log holds is replayed."""
        subprocess.run(["mount", "-o", "loop", self.image, self.place], check=True)
        self.mounted = True

    def unmount(self) -> None:
        """Unmounts it, if it is mounted."""
        if self.mounted:
            subprocess.run(["umount", self.place], check=True)
            self.mounted = False

    def cut_power(self) -> None:
        """Loses all that was not synced; nothing can be written until it is mounted again."""
        descriptor = os.open(self.place, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, SHUTDOWN, struct.pack("I", WITHOUT_LOG))
        finally:
            os.close(descriptor)


@contextmanager
def new_disk(kind: str) -> Iterator[Disk]:
    """A disk that is gone at the end."""
    with tempfile.TemporaryDirectory(prefix="ddpo-power-") as folder:
        disk = Disk(Path(folder), kind)
        try:
            yield disk
        finally:
            disk.unmount()


def settings() -> dict[str, object]:
    """A run of some seconds with the embedded model."""
    return {
        "reward": "darkness",
        "iterations": ITERATIONS,
        "checkpoint_every": 1,
        "checkpoint_keep": 2,
        "grid_every": 100,
        "sample": {"samples": 2, "per_prompt": 2, "steps": 2, "batch": 2},
        "optim": {"updates": 1, "timesteps": 1},
        "advantage": {"kind": "per_prompt", "min_count": 2},
    }


def run_training(folder: Path, report: Callable[[str], None]) -> None:
    """Trains or resumes in `folder`; reports "started", and each finished iteration."""
    from ddpo.trainer import config_from_dict
    from ddpo.trainer.loop import resume, train
    from ddpo.trainer.monitoring.events import IterationDone, Started

    run = folder / "run"
    started = (run / "config.json").exists()
    for event in resume(run) if started else train(config_from_dict(settings()), run):
        if isinstance(event, Started):
            report("started")
        if isinstance(event, IterationDone):
            report(str(event.metrics.iteration))


def check_training(folder: Path, reported: list[str]) -> str | None:
    """The fault after a cut in words, or None."""
    from ddpo.policies.checkpoints.folder import find_checkpoint
    from ddpo.trainer.run.folder import RunFolder

    run = folder / "run"
    if not (run / "config.json").exists():
        if not reported:
            RunFolder.check_new(run)
        return "the run is gone" if reported else None
    opened = RunFolder.open(run)
    opened.config(), opened.manifest()
    done = opened.load_state()[0]
    last = max((int(word) for word in reported if word.isdigit()), default=0)
    if done < last:
        return f"iteration {last} was reported, the state is of {done}"
    if last and find_checkpoint(run).iteration < last:
        return f"the checkpoint of iteration {last} is gone"
    run_training(folder, lambda word: None)
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return None if len(lines) == ITERATIONS else f"{len(lines)} lines of metrics"


def run_scoring(folder: Path, report: Callable[[str], None]) -> None:
    """Scores 40 images into a table; reports "wrote" once it is said to be written."""
    from typer.testing import CliRunner

    from ddpo.cli.main import app

    words = ["rewards", "score", "darkness", str(folder / "pictures")]
    words += ["--out", str(folder / "t" / "s.csv")]
    result = CliRunner().invoke(app, words)
    if result.exit_code:
        raise SystemExit(result.output)
    report("wrote")


def make_pictures(folder: Path) -> None:
    """Forty grey images."""
    from PIL import Image

    folder.mkdir()
    for level in range(40):
        Image.new("RGB", (32, 32), (level, level, level)).save(folder / f"{level:02}.png")


def check_scoring(folder: Path, reported: list[str]) -> str | None:
    """The fault after a cut in words, or None."""
    table = folder / "t" / "s.csv"
    if reported and not table.exists():
        return "the table is gone"
    if not table.exists():
        run_scoring(folder, lambda word: None)
    lines = table.read_text().splitlines()
    return None if len(lines) == 41 else f"{len(lines)} lines in the table"


def run_evaluation(folder: Path, report: Callable[[str], None]) -> None:
    """Evaluates two folders of images; reports "wrote" at its end."""
    from typer.testing import CliRunner

    from ddpo.cli.main import app

    words = ["eval", "--out", str(folder / "report"), "--reward", "darkness", "--no-held-out"]
    words += [f"--images={name}={folder / name}" for name in ("base", "tuned")]
    result = CliRunner().invoke(app, words)
    if result.exit_code:
        raise SystemExit(result.output)
    report("wrote")


def make_prompted(folder: Path) -> None:
    """Images of two prompts, as `ddpo sample` leaves them."""
    import json

    from PIL import Image

    folder.mkdir()
    lines = []
    for number in range(8):
        level = 20 * number + len(folder.name)
        Image.new("RGB", (32, 32), (level, 9, 9)).save(folder / f"{number}.png")
        line = {"file_name": f"{number}.png", "prompt": PROMPTS[number % 2], "index": number // 2}
        lines.append(json.dumps(line))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")


def check_evaluation(folder: Path, reported: list[str]) -> str | None:
    """The fault after a cut in words, or None."""
    from ddpo.eval.generate.image_store import ImageStore
    from ddpo.eval.generate.samples import read_samples
    from ddpo.eval.report.data import load_report

    out = folder / "report"
    if not reported:
        run_evaluation(folder, lambda word: None)
    if not load_report(out / "report.json").rewards:
        return "the report names no reward"
    if "</html>" not in (out / "report.html").read_text(encoding="utf-8"):
        return "report.html is cut short"
    hashes = {row.image_sha256 for row in read_samples(out / "samples.parquet")}
    with ImageStore(out) as store:
        damaged = store.damaged(hashes)
    return f"{len(damaged)} of {len(hashes)} images are damaged" if damaged else None


WORK: Final[dict[str, tuple[Callable[..., None], Callable[..., str | None]]]] = {
    "training": (run_training, check_training),
    "scoring": (run_scoring, check_scoring),
    "evaluation": (run_evaluation, check_evaluation),
}


def prepare(name: str, folder: Path) -> None:
    """Makes the images that the work reads, and sees them onto the disk."""
    if name == "scoring":
        make_pictures(folder / "pictures")
    if name == "evaluation":
        make_prompted(folder / "tuned")
        make_prompted(folder / "base")
    os.sync()


def started(work: Callable[..., None], folder: Path) -> tuple[int, int]:
    """Starts work in a process of its own: its id, and where its reports can be read."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        return pid, reading
    os.close(reading)
    code = 1
    try:
        work(folder, lambda word: os.write(writing, f"{word}\n".encode()))
        code = 0
    finally:
        os._exit(code)


def try_once(kind: str, name: str, chance: random.Random, seconds: float) -> str | None:
    """Cuts the power once, at a random time or right after a report; says what is wrong."""
    work, check = WORK[name]
    with new_disk(kind) as disk:
        prepare(name, disk.place)
        pid, reading = started(work, disk.place)
        at_report = name != "training" or chance.random() < 0.5
        reports = chance.randint(1, ITERATIONS + 1) if name == "training" else 1
        until = time.monotonic() + (600 if at_report else chance.uniform(0.0, seconds))
        reported = reported_until(reading, until, reports if at_report else 1 << 30)
        disk.cut_power()
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(reading)
        disk.unmount()
        disk.mount()
        found = checked(check, disk.place, reported)
    print(f"{kind} {name}: cut after {reported}: {found or 'nothing lost'}", flush=True)
    return found


def reported_until(reading: int, until: float, count: int) -> list[str]:
    """The words that the work reports before a time, `count` of them at most."""
    os.set_blocking(reading, False)
    text = ""
    while time.monotonic() < until and text.count("\n") < count:
        try:
            data = os.read(reading, 4096)
        except BlockingIOError:
            time.sleep(0.002)
            continue
        if not data:
            break
        text += data.decode()
    return text.split()


def checked(check: Callable[..., str | None], folder: Path, reported: list[str]) -> str | None:
    """Checks in a process of its own, since PyTorch's threads do not survive a fork."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            text = check(folder, reported) or ""
        except BaseException as error:  # noqa: BLE001  # all that goes wrong here is a finding
            text = f"{type(error).__name__}: {error}"
        os.write(writing, text.encode()[:4000])
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        text = file.read().decode()
    os.waitpid(pid, 0)
    return text or None


def main() -> int:
    """Prints one line for each cut; exit code 1 if anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--filesystem", choices=sorted(BYTES), default="ext4")
    parser.add_argument("--work", choices=sorted(WORK), default="training")
    parser.add_argument("--tries", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=10.0, help="Latest random cut.")
    options = parser.parse_args()
    if os.geteuid() or not shutil.which(f"mkfs.{options.filesystem}"):
        parser.error(f"needs root and mkfs.{options.filesystem}")
    load_packages()
    chance = random.Random(options.seed)
    found = [
        try_once(options.filesystem, options.work, chance, options.seconds)
        for _ in range(options.tries)
    ]
    lost = [text for text in found if text]
    print(f"{options.tries} power cuts, {len(lost)} with a loss")
    return 1 if lost else 0


def load_packages() -> None:
    """Imports what the forked processes need, so that each starts at once."""
    import diffusers.loaders  # noqa: F401
    import peft  # noqa: F401

    import ddpo.cli.main
    import ddpo.eval
    import ddpo.trainer.loop  # noqa: F401


if __name__ == "__main__":
    sys.exit(main())
