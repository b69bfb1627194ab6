"""The works of the trials: small commands of ddpo, what they read, and what they must leave."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from programs import run_program

__all__ = [
    "ITERATIONS",
    "WORKS",
    "Work",
    "content",
    "prepare",
    "remove_outputs",
    "steady_bytes",
    "train_words",
]

ITERATIONS: Final = 3
TIME: Final = re.compile(rb"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?(\+00:00| UTC)?")
PROMPTS: Final = ("a cat", "a dog")
TIMES: Final = ("seconds", "seconds_sampling", "seconds_training")
SETTINGS: Final = (
    "sample.samples=2",
    "sample.per_prompt=2",
    "sample.steps=2",
    "sample.batch=2",
    "optim.updates=1",
    "optim.timesteps=1",
    "advantage.kind=per_prompt",
    "advantage.min_count=2",
    "checkpoint_every=1",
    "checkpoint_keep=2",
    "grid_every=3",
)


@dataclass(frozen=True, slots=True)
class Work:
    """One kind of work.

    Attributes:
        name: "training", "scoring", "evaluation", "sampling" or "export".
        outputs: files and folders that it makes.
        words: arguments of `ddpo` that start the work in a folder, or resume it there.
        reads: inputs that it needs, by their names in `INPUTS`.
        journals: names of files whose order or repetitions depend on interruptions.
    """

    name: str
    outputs: tuple[str, ...]
    words: Callable[[Path], list[str]]
    reads: tuple[str, ...] = ()
    journals: tuple[str, ...] = ()


def train_words(out: str, iterations: int = ITERATIONS, reward: str = "darkness") -> list[str]:
    """Arguments of a training of some seconds."""
    words = ["train", "--reward", reward, "--out", out, "--iterations", str(iterations)]
    return words + [word for setting in SETTINGS for word in ("--set", setting)]


def _training(folder: Path) -> list[str]:
    started = (folder / "run" / "config.json").exists()
    return ["train", "--resume", "run"] if started else train_words("run")


def _scoring(folder: Path) -> list[str]:
    words = ["rewards", "score", "darkness", "sharpness", "images", "--out", "table.jsonl"]
    return [*words, "--batch-size", "4"]


def _evaluation(folder: Path) -> list[str]:
    words = ["eval", "--checkpoint", "trained", "--out", "report", "--reward", "darkness"]
    words += ["--prompts", "prompts.txt", "--no-held-out", "--seeds", "2", "--steps", "2"]
    return [*words, "--history", "0", "--best-of", "0"]


def _sampling(folder: Path) -> list[str]:
    return ["sample", *PROMPTS, "--count", "20", "--steps", "2", "--out", "samples"]


def _export(folder: Path) -> list[str]:
    return ["export", "tuned", "--to", "exported"]


WORKS: Final = {
    work.name: work
    for work in (
        Work("training", ("run",), _training),
        Work("scoring", ("table.jsonl",), _scoring, ("images",)),
        Work(
            "evaluation",
            ("report",),
            _evaluation,
            ("trained", "prompts.txt"),
            ("journal", "scores"),
        ),
        Work("sampling", ("samples",), _sampling),
        Work("export", ("exported",), _export, ("tuned",)),
    )
}


def make_images(path: Path) -> None:
    """Forty grey images in three sizes, and one file that is no image."""
    from PIL import Image

    path.mkdir()
    for level in range(40):
        size = 24 + 8 * (level % 3)
        Image.new("RGB", (size, size), (level, 2 * level, 9)).save(path / f"{level:02}.png")
    (path / "torn.png").write_bytes((path / "00.png").read_bytes()[:40])


def make_trained(path: Path) -> None:
    """A finished run of the embedded model."""
    program = run_program(train_words(path.name), path.parent)
    if program.poll():
        raise RuntimeError(program.output)


def make_prompts(path: Path) -> None:
    """A file of two prompts."""
    path.write_text("".join(f"{text}\n" for text in PROMPTS))


def make_tuned(path: Path) -> None:
    """A LoRA checkpoint, as a run of Stable Diffusion leaves it."""
    import numpy as np
    from safetensors.numpy import save_file

    from ddpo.policies.checkpoints.folder import LORA_FILE, write_facts

    path.mkdir()
    key = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora"
    chance = np.random.default_rng(0)
    shapes = {"A": (4, 320), "B": (320, 4)}
    tensors = {
        f"{key}_{side}.weight": chance.normal(size=shape).astype("float32")
        for side, shape in shapes.items()
    }
    save_file(tensors, path / LORA_FILE)
    adapter = {"rank": 4, "alpha": 4.0, "targets": ["to_q"]}
    write_facts(path, "stable-diffusion-v1-5/stable-diffusion-v1-5", "lora", 3, adapter)


INPUTS: Final[dict[str, Callable[[Path], None]]] = {
    "images": make_images,
    "trained": make_trained,
    "prompts.txt": make_prompts,
    "tuned": make_tuned,
}


def prepare(work: Work, folder: Path) -> None:
    """Makes what the work reads, unless it is there."""
    folder.mkdir(exist_ok=True)
    for name in work.reads:
        if not (folder / name).exists():
            INPUTS[name](folder / name)


def remove_outputs(work: Work, folder: Path) -> None:
    """Removes all that the work may have left, and the cache."""
    for path in folder.iterdir():
        if path.name in work.reads:
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def content(work: Work, folder: Path) -> dict[str, str]:
    """Digest of each file that the work left, without measured times, by its path.

    Also files that should not be there, such as temporary ones and locks, have an entry.
    """
    found: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        top = name.split("/")[0]
        if path.is_dir() or top in (*work.reads, "cache"):
            continue
        if path.name.startswith(work.journals) and path.suffix == ".jsonl":
            found[name] = ""
        else:
            found[name] = hashlib.sha256(steady_bytes(path)).hexdigest()
    return found


def steady_bytes(path: Path) -> bytes:
    """The bytes of a file without measured times and without the order of a header's tensors."""
    data = path.read_bytes()
    if path.suffix == ".safetensors":
        return _tensors(data)
    if path.name == "metrics.jsonl":
        rows = [json.loads(line) for line in data.splitlines()]
        return json.dumps([_without(row, TIMES) for row in rows]).encode()
    if path.name == "manifest.json":
        return json.dumps(_without(json.loads(data), ("started",))).encode()
    if path.name in ("report.json", "report.html"):
        return TIME.sub(b"TIME", data)
    return data


def _tensors(data: bytes) -> bytes:
    """The tensors and metadata in the order of their names, which the file does not fix."""
    from safetensors.numpy import load

    size = int.from_bytes(data[:8], "little")
    metadata = json.loads(data[8 : 8 + size]).get("__metadata__", {})
    parts = [
        f"{name} {value.dtype} {value.shape}".encode() + value.tobytes()
        for name, value in sorted(load(data).items())
    ]
    return json.dumps(metadata, sort_keys=True).encode() + b"".join(parts)


def _without(record: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in names}
