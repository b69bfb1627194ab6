"""Power cuts while ddpo trains, scores, evaluates, samples, exports or fills the score cache.

The power of a real file system on a loop device is cut (`power_disks`), at a random time or right
after something was reported as written. Then that must be there, and the same command must end the
work.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from outcome import Outcome
from power_disks import missing_for, new_disk
from programs import load_packages
from work import INPUTS, ITERATIONS, PROMPTS, make_images

if TYPE_CHECKING:
    from ddpo.rewards.cache.rows import CachedScore

__all__ = ["WORK", "prepare", "run"]

KINDS: Final = ("ext4", "xfs")
TRIES: Final = {
    "training": 20,
    "scoring": 10,
    "evaluation": 10,
    "sampling": 5,
    "export": 5,
    "cache": 5,
}
"""Power cuts on each file system."""
SECONDS: Final = {"training": 6.0, "sampling": 2.0, "export": 0.2, "cache": 0.5}
"""Latest random time of a cut; other works are cut after their report."""
REPORTS: Final = {"training": ITERATIONS + 1, "cache": 8}

Report = Callable[[str], None]


def run(size: float, seed: int, folder: Path) -> list[Outcome]:
    """Cuts the power of ext4 and of XFS during each kind of work."""
    load_packages()
    outcomes = []
    for kind in KINDS:
        lacking = missing_for(kind)
        if lacking:
            print(f"no power cuts of {kind}: {lacking}")
            continue
        for name, full in TRIES.items():
            chance = random.Random(f"{seed} {kind} {name}")
            outcome = Outcome(f"power cuts of {name} on {kind}")
            start = time.monotonic()
            for _ in range(max(1, round(full * size))):
                outcome.count(try_once(kind, name, chance, folder))
            outcome.measures["seconds"] = time.monotonic() - start
            outcomes.append(outcome)
    return outcomes


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


def run_training(folder: Path, report: Report) -> None:
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


def call(*words: str) -> None:
    """Runs a command in this process.

    Raises:
        SystemExit: it failed; with its output.
    """
    from typer.testing import CliRunner

    from ddpo.cli.main import app

    result = CliRunner().invoke(app, words)
    if result.exit_code:
        raise SystemExit(f"{result.output} {result.exception}")


def run_scoring(folder: Path, report: Report) -> None:
    """Scores 40 images into a table; reports "wrote" once it is said to be written."""
    out = str(folder / "t" / "s.csv")
    call("rewards", "score", "darkness", str(folder / "images"), "--out", out)
    report("wrote")


def check_scoring(folder: Path, reported: list[str]) -> str | None:
    """The fault after a cut in words, or None."""
    table = folder / "t" / "s.csv"
    if reported and not table.exists():
        return "the table is gone"
    if not table.exists():
        run_scoring(folder, lambda word: None)
    lines = table.read_text().splitlines()
    return None if len(lines) == 42 else f"{len(lines)} lines in the table"


def run_evaluation(folder: Path, report: Report) -> None:
    """Evaluates two folders of images; reports "wrote" at its end."""
    words = ["eval", "--out", str(folder / "report"), "--reward", "darkness", "--no-held-out"]
    call(*words, *(f"--images={name}={folder / name}" for name in ("base", "tuned")))
    report("wrote")


def make_prompted(folder: Path) -> None:
    """Images of two prompts, as `ddpo sample` leaves them."""
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


def run_sampling(folder: Path, report: Report) -> None:
    """Samples images; reports "wrote" at its end."""
    out = folder / "samples"
    call("sample", *PROMPTS, "--count", "20", "--steps", "1", "--out", str(out))
    report("wrote")


def check_sampling(folder: Path, reported: list[str]) -> str | None:
    """The fault after a cut in words, or None."""
    from PIL import Image

    if not reported and not (folder / "samples" / "sheet.png").exists():
        run_sampling(folder, lambda word: None)
    rows = (folder / "samples" / "metadata.jsonl").read_text().splitlines()
    names = [json.loads(row)["file_name"] for row in rows]
    for name in (*names, "sheet.png"):
        Image.open(folder / "samples" / name).load()
    return None if len(set(names)) == 40 else f"{len(set(names))} images"


def run_export(folder: Path, report: Report) -> None:
    """Exports a LoRA checkpoint; reports "wrote" at its end."""
    call("export", str(folder / "lora"), "--to", str(folder / "exported"))
    report("wrote")


def check_export(folder: Path, reported: list[str]) -> str | None:
    """The fault after a cut in words, or None."""
    from ddpo.policies.checkpoints.folder import LORA_FILE

    place = folder / "exported"
    if not reported and not (place.exists() and any(place.iterdir())):
        run_export(folder, lambda word: None)
    if (place / LORA_FILE).read_bytes() != (folder / "lora" / LORA_FILE).read_bytes():
        return "the exported weights differ"
    return None if "\n# " in (place / "README.md").read_text() else "the model card is cut short"


def cached_scores(batch: int) -> list[tuple[bytes, CachedScore]]:
    """Ten scores by key."""
    from ddpo.rewards.cache.rows import CachedScore

    numbers = range(10 * batch, 10 * batch + 10)
    return [(f"{number:032}".encode(), CachedScore(number / 8, {})) for number in numbers]


def run_cache(folder: Path, report: Report) -> None:
    """Fills a score cache; reports each batch."""
    from ddpo.rewards.cache import ScoreCache

    with ScoreCache(folder / "cache" / "scores.sqlite") as cache:
        for batch in range(40):
            cache.put("darkness", "identity", cached_scores(batch))
            report(str(batch))


def check_cache(folder: Path, reported: list[str]) -> str | None:
    """The fault after a cut in words, or None: each score is there whole or not at all."""
    from ddpo.rewards.cache import ScoreCache

    with warnings.catch_warnings(), ScoreCache(folder / "cache" / "scores.sqlite") as cache:
        warnings.simplefilter("error")
        for batch in range(40):
            stored = dict(cached_scores(batch))
            found = cache.get(list(stored))
            if found and found != stored:
                return f"batch {batch} is there in part: {len(found)} of {len(stored)}"
        cache.put("darkness", "identity", cached_scores(0))
        return None if cache.get(list(dict(cached_scores(0)))) else "no score can be stored"


WORK: Final[dict[str, tuple[Callable[..., None], Callable[..., str | None]]]] = {
    "training": (run_training, check_training),
    "scoring": (run_scoring, check_scoring),
    "evaluation": (run_evaluation, check_evaluation),
    "sampling": (run_sampling, check_sampling),
    "export": (run_export, check_export),
    "cache": (run_cache, check_cache),
}


def prepare(name: str, folder: Path) -> None:
    """Makes the images that the work reads, and sees them onto the disk."""
    if name == "scoring":
        make_images(folder / "images")
    if name == "evaluation":
        make_prompted(folder / "tuned")
        make_prompted(folder / "base")
    if name == "export":
        INPUTS["tuned"](folder / "lora")
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
    silence()
    try:
        work(folder, lambda word: os.write(writing, f"{word}\n".encode()))
        code = 0
    finally:
        os._exit(code)


def try_once(kind: str, name: str, chance: random.Random, folder: Path) -> str | None:
    """Cuts the power once, at a random time or right after a report; returns the fault."""
    work, check = WORK[name]
    with new_disk(kind, folder) as disk:
        prepare(name, disk.place)
        pid, reading = started(work, disk.place)
        at_report = name not in SECONDS or chance.random() < 0.5
        reports = chance.randint(1, REPORTS.get(name, 1)) if at_report else 1 << 30
        seconds = 600.0 if at_report else chance.uniform(0.0, SECONDS[name])
        reported = reported_until(reading, time.monotonic() + seconds, reports)
        disk.cut_power()
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(reading)
        disk.unmount()
        disk.mount()
        found = checked(check, disk.place, reported)
    if at_report and not reported:
        return "the work ended without a report"
    return found and f"cut after {reported}: {found}"


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


def silence() -> None:
    """Drops what this forked process prints."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(nowhere, descriptor)


def checked(check: Callable[..., str | None], folder: Path, reported: list[str]) -> str | None:
    """Checks in a process of its own, since PyTorch's threads do not survive a fork."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        silence()
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
