"""Measures the throughput of rewards with models for docs/performance.md.

`python tools/measure_rewards.py --out speed.json`, on a GPU with `--device cuda --batches
16,64,256`. Random weights of the real sizes are written in the original formats. In one process per
row, two ways of scoring the files of a folder take turns, in the same dtype on the same device. One
is the plain loop of the original's README: one image at a time, its text encoded each time. The
other is `score_files` through `make_scorer`.

Speeds and ratios are medians over the rounds. Rows in the JSON file are not measured again, so that
an interrupted measurement resumes.
"""

from __future__ import annotations

import argparse
import gc
import inspect
import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from plain_loops import LOOPS
from random_weights import taken_for_real, write_head, write_hps, write_imagereward, write_real_clip
from torch import nn

from ddpo.devices import processors
from ddpo.inputs.input_image import InputImage
from ddpo.rewards.image_files import score_files
from ddpo.rewards.models.shared_encoders import forget_embeddings
from ddpo.rewards.scoring.scorer import make_scorer
from ddpo.rewards.zoo import resolve
from ddpo.types import Prompt

BACKBONES = {
    "clip_score": "ViT-B/32",
    "aesthetic": "ViT-L/14",
    "pickscore": "ViT-H/14",
    "hpsv2": "ViT-H/14",
    "imagereward": "BLIP large",
}
ON_CPU = {
    "clip_score": 64,
    "aesthetic": 16,
    "imagereward": 16,
    "pickscore": 8,
    "hpsv2": 8,
}  # images: a minute per row on two cores
ANIMALS = ("cat", "dog", "horse", "monkey", "rabbit", "zebra", "spider")
DOINGS = ("washing the dishes", "riding a bike", "playing chess")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("reward_speed.json"),
        help="rows so far; the table is printed",
    )
    parser.add_argument("--rewards", default=",".join(BACKBONES))
    parser.add_argument("--dtypes", default="float32,bfloat16")
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--batches",
        default=None,
        help="batch sizes, of which the best counts (4,16 on the CPU, 16,64 on a GPU)",
    )
    parser.add_argument(
        "--images",
        "--pictures",
        type=int,
        default=None,
        help="number of images (8 to 64 on the CPU, 256 on a GPU)",
    )
    parser.add_argument("--per-prompt", type=int, default=4, help="images of one prompt")
    parser.add_argument("--side", type=int, default=512, help="side of the images, in pixels")
    parser.add_argument("--format", default="png", choices=("png", "jpg"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--compile", action="store_true", help="our encoders through torch.compile")
    parser.add_argument(
        "--tiny",
        action="store_true",
        help="encoders of two layers of width 32, so that the rest is measured",
    )
    parser.add_argument(
        "--row", nargs=3, metavar=("REWARD", "DTYPE", "FOLDER"), help=argparse.SUPPRESS
    )
    return parser.parse_args()


def words(round_: int, count: int, per_prompt: int) -> list[str]:
    """A prompt for each of `count` images, new in each round, so that no embedding is reused."""
    texts = [f"a {animal} {doing}" for doing in DOINGS for animal in ANIMALS]
    return [
        f"{texts[place // per_prompt % len(texts)]}, {round_} {place // per_prompt // len(texts)}"
        for place in range(count)
    ]


def write_images(folder: Path, count: int, side: int, suffix: str) -> list[Path]:
    """Image files with coarse shapes and some noise."""
    folder.mkdir()
    random = np.random.default_rng(0)
    paths = [folder / f"{place:04}.{suffix}" for place in range(count)]
    for path in paths:
        coarse = Image.fromarray(random.integers(0, 230, (12, 12, 3)).astype(np.uint8)).resize(
            (side, side), Image.Resampling.BICUBIC
        )
        noise = random.integers(0, 12, (side, side, 3))
        Image.fromarray((np.asarray(coarse) + noise).clip(0, 255).astype(np.uint8)).save(path)
    return paths


def write_weights(reward: str, folder: Path, tiny: bool) -> dict[str, str]:
    """Options by which the reward finds its random weights, which are written on the first call."""
    new = not folder.exists()
    folder.mkdir(exist_ok=True)
    if reward == "imagereward":
        if new:
            write_imagereward(
                folder, [*ANIMALS, *" ".join(DOINGS).split(), "a", *map(str, range(99))], tiny
            )
        return {
            name: str(folder / file)
            for name, file in (
                ("checkpoint", "ImageReward.pt"),
                ("config", "med_config.json"),
                ("vocabulary", "vocab.txt"),
            )
        }
    if reward == "hpsv2":
        if new:
            write_hps(folder / "hps.pt", tiny)
        return {"checkpoint": str(folder / "hps.pt")}
    if new:
        write_real_clip(folder / "clip", BACKBONES[reward], tiny)
        write_head(folder / "head.pth")
    clip = str(folder / "clip")
    if reward == "aesthetic":
        return {"head": str(folder / "head.pth"), "clip": f"{clip}/model.safetensors"}
    return {"clip": clip, "processor": clip} if reward == "pickscore" else {"clip": clip}


def encoders_of(thing: Any, depth: int = 6) -> Iterator[nn.Module]:
    """The networks that an object of ddpo holds."""
    if isinstance(thing, nn.Module):
        halves = dict(thing.named_children())  # of OpenCLIP, which is not called as a whole
        yield from (halves["visual"], halves["transformer"]) if "visual" in halves else (thing,)
    elif depth and inspect.isfunction(thing):
        for value in inspect.getclosurevars(thing).nonlocals.values():
            yield from encoders_of(value, depth - 1)
    elif depth and type(thing).__module__.startswith("ddpo."):
        for value in vars(thing).values():
            yield from encoders_of(value, depth - 1)


class Clock:
    """Seconds spent inside networks, outermost calls only."""

    def __init__(self, encoders: Sequence[nn.Module], device: str) -> None:
        self.seconds = 0.0
        self._open = 0
        self._start = 0.0
        self._device = device
        for encoder in {id(encoder): encoder for encoder in encoders}.values():
            encoder.register_forward_pre_hook(self._begin)
            encoder.register_forward_hook(self._end)

    def _begin(self, *_: Any) -> None:
        if not self._open:
            self._start = self._now()
        self._open += 1

    def _end(self, *_: Any) -> None:
        self._open -= 1
        if not self._open:
            self.seconds += self._now() - self._start

    def _now(self) -> float:
        if self._device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter()


def measured(
    reward: str, dtype: str, folder: Path, args: argparse.Namespace, count: int, batches: list[int]
) -> dict[str, Any]:
    """One row: images per second of both ways, and the share of time in the networks of each."""
    paths = write_images(folder.parent / f"{reward}-{dtype}", count, args.side, args.format)
    options = write_weights(reward, folder, args.tiny)
    with taken_for_real(args.tiny):
        plain, theirs = LOOPS[reward](folder, args.device, getattr(torch, dtype), args.tiny)
        gc.collect()
        resolved = resolve(reward, **options, device=args.device, dtype=dtype)
        scorers = {size: make_scorer(resolved, size) for size in batches[:1]}
        first = scorers[batches[0]]
        scorers |= {size: type(first)(first.reward, size) for size in batches[1:]}
    mine = list(encoders_of(first.reward))
    if args.compile:
        for encoder in mine:
            encoder.compile()
    clocks = Clock(theirs, args.device), Clock(mine, args.device)
    rounds = [
        one_round(round_, plain, scorers, paths, args.per_prompt, clocks)
        for round_ in range(-1, args.rounds)
    ][1:]
    best = max(batches, key=lambda size: statistics.median(row["ratio"][size] for row in rounds))
    median = {
        name: statistics.median(row[name][best] for row in rounds)
        for name in ("ours", "ratio", "share")
    }
    return {
        "ours_per_s": median["ours"],
        "plain_per_s": statistics.median(row["plain"] for row in rounds),
        "ratio": median["ratio"],
        "ratios": [row["ratio"][best] for row in rounds],
        "batch": best,
        "networks_share_of_ours": median["share"],
        "networks_share_of_plain": statistics.median(row["plain_share"] for row in rounds),
        "pictures": count,
        "largest_difference": max(row["difference"] for row in rounds),
        "spread_of_scores": rounds[0]["spread"],
    }


def one_round(
    round_: int,
    plain: Any,
    scorers: dict[int, Any],
    paths: Sequence[Path],
    per_prompt: int,
    clocks: tuple[Clock, Clock],
) -> dict[str, Any]:
    """One round of the plain loop, then of ours with each batch size, on the same files.

    The round before the first one warms up.
    """
    texts = words(round_, len(paths), per_prompt)
    in_networks = clocks[0].seconds
    start = time.perf_counter()
    due = [plain(path, text) for path, text in zip(paths, texts, strict=True)]
    slow = time.perf_counter() - start
    row: dict[str, Any] = {
        "plain": len(paths) / slow,
        "plain_share": (clocks[0].seconds - in_networks) / slow,
        "ours": {},
        "ratio": {},
        "share": {},
        "spread": float(np.std(due)),
    }
    for size, scorer in scorers.items():
        fast, share = score_once(scorer, size, paths, texts, clocks[1])
        row["ours"][size] = len(paths) / fast
        row["ratio"][size] = slow / fast
        row["share"][size] = share
    scorer = next(iter(scorers.values()))
    return row | {"difference": largest_difference(scorer, paths[:2], texts[:2], due[:2])}


def score_once(
    scorer: Any, size: int, paths: Sequence[Path], texts: Sequence[str], clock: Clock
) -> tuple[float, float]:
    """Seconds of one scoring of all files, and the share of them spent in the networks.

    Raises:
        RuntimeError: An image got no score.
    """
    forget_embeddings()
    images = [
        InputImage(str(path), Prompt(f"{text} {size}"))
        for path, text in zip(paths, texts, strict=True)
    ]
    in_networks = clock.seconds
    start = time.perf_counter()
    found = [scored.score for (scored,) in score_files([scorer], images, size)]
    seconds = time.perf_counter() - start
    if any(score is None for score in found):
        raise RuntimeError("an image got no score")
    return seconds, (clock.seconds - in_networks) / seconds


def largest_difference(
    scorer: Any, paths: Sequence[Path], texts: Sequence[str], due: Sequence[float]
) -> float:
    """The largest difference between our scores and those of the plain loop."""
    forget_embeddings()
    images = [InputImage(str(path), Prompt(text)) for path, text in zip(paths, texts, strict=True)]
    scores = [scored.score for (scored,) in score_files([scorer], images)]
    return max(abs((score or 0.0) - want) for score, want in zip(scores, due, strict=True))


def settings_of_row(reward: str, dtype: str, args: argparse.Namespace) -> dict[str, Any]:
    """The settings that distinguish a row from others."""
    return {
        "reward": reward,
        "dtype": dtype,
        "device": args.device,
        "tiny": args.tiny,
        "compiled": args.compile,
        "per_prompt": args.per_prompt,
        "side": args.side,
        "format": args.format,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    heads = (
        "reward",
        "network",
        "dtype",
        "plain loop, images/s",
        "ours, images/s",
        "ratio",
        "batch",
        "network's share, plain → ours",
        "peak memory",
    )
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in rows:
        network = ("tiny" if row["tiny"] else BACKBONES[row["reward"]]) + (
            ", compiled" if row["compiled"] else ""
        )
        shares = f"{row['networks_share_of_plain']:.0%} → {row['networks_share_of_ours']:.0%}"
        lines.append(
            f"| `{row['reward']}` | {network} | {row['dtype']} | {row['plain_per_s']:.3g} "
            f"| {row['ours_per_s']:.3g} | {row['ratio']:.2f} | {row['batch']} | {shares} "
            f"| {row['peak_mb'] / 1000:.1f} GB |"
        )
    return "\n".join(lines)


def measure_row(args: argparse.Namespace) -> None:
    """Measures one row, in a process of its own, and prints it as JSON."""
    reward, dtype, folder = args.row
    torch.set_num_threads(processors())
    on_cpu = args.device == "cpu"
    count = args.images or (ON_CPU[reward] if on_cpu else 256)
    batches = [int(size) for size in (args.batches or ("4,16" if on_cpu else "16,64")).split(",")]
    row = settings_of_row(reward, dtype, args)
    row |= measured(reward, dtype, Path(folder), args, count, batches)
    machine = platform.machine() if on_cpu else torch.cuda.get_device_name()
    row |= {
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000,
        "threads": torch.get_num_threads(),
        "machine": machine,
    }
    row |= {name: version(name) for name in ("torch", "transformers", "open_clip_torch", "pillow")}
    print(json.dumps(row))


def main() -> None:
    args = arguments()
    if args.row:
        measure_row(args)
        return
    rows: list[dict[str, Any]] = json.loads(args.out.read_text()) if args.out.exists() else []
    for reward in args.rewards.split(","):
        with tempfile.TemporaryDirectory() as folder:
            for dtype in args.dtypes.split(","):
                wanted = settings_of_row(reward, dtype, args)
                if any(wanted.items() <= row.items() for row in rows):
                    continue
                row_options = ["--row", reward, dtype, f"{folder}/weights"]
                command = [sys.executable, __file__, *sys.argv[1:], *row_options]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                rows.append(json.loads(done.stdout.splitlines()[-1]))
                args.out.write_text(json.dumps(rows, indent=1) + "\n")
                print(table(rows[-1:]).splitlines()[-1], flush=True)
    print("\n" + table(rows))


if __name__ == "__main__":
    main()
