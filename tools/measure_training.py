"""Measures training against kvablack/ddpo-pytorch's loop for docs/performance.md.

`python tools/measure_training.py CHECKOUT --threads 1 --out speed.json`. Both train the same random
Stable Diffusion with LoRA of rank 4 on JPEG compressibility, guidance 5 in sampling and training,
η 1. With `--size tiny`: 64×64 images, latents 4×16×16; 16 images an iteration, 20 steps, 2 updates.
With `--size sd15`: Stable Diffusion 1.5's architecture, and the workload of the checkout's
config/dgx.py: 32 images an iteration, 50 steps, 4 updates.

Each measurement is a process of its own. Ours and theirs take turns, so that a slower moment of the
machine hits both. Theirs counts from the end of the first sampling, ours of the first iteration.
With `--device cuda` both run on the GPU, and the peak is what torch allocated there.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from reference_loop import WORKLOADS, Workload, peak_mb, synchronize

from ddpo.doctor.random_policies import SD15, PolicySize, write_model

THEIRS = {"theirs": "plain", "fused": "fused"}  # → the attention of reference_loop.py
ROWS = {
    "tiny": "theirs:2,fused:2,fused:8,ours:16",
    "sd15": "theirs:4/float16,fused:4/float16,fused:8/float16,ours:8/float16,ours:8/bfloat16",
}


def arguments() -> argparse.Namespace:
    """The parsed command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkout", type=Path, help="a checkout of kvablack/ddpo-pytorch")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("training_speed.json"),
        help="rows so far; the table is printed",
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=3, help="counted iterations per process")
    parser.add_argument(
        "--model",
        type=Path,
        default=None,
        help="folder of a model to train instead of the random one",
    )
    parser.add_argument(
        "--size", choices=list(WORKLOADS), default="tiny", help="size of the model and the workload"
    )
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="device of both loops"
    )
    parser.add_argument(
        "--rows",
        default=None,
        help="rows WHO:BATCH or WHO:BATCH/DTYPE, separated by commas",
    )
    parser.add_argument("--ours", nargs=2, metavar=("BATCH", "DTYPE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no CUDA device on this machine")
    options.rows = options.rows or ROWS[options.size]
    return options


TINY = PolicySize(
    unet={
        "sample_size": 16,
        "block_out_channels": (32, 64),
        "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "cross_attention_dim": 32,
    },
    vae={
        "down_block_types": ("DownEncoderBlock2D",) * 3,
        "up_block_types": ("UpDecoderBlock2D",) * 3,
        "block_out_channels": (32, 32, 64),
        "layers_per_block": 1,
        "sample_size": 64,
    },
    text=(
        {
            "hidden_size": 32,
            "intermediate_size": 37,
            "num_hidden_layers": 5,
            "num_attention_heads": 4,
        },
    ),
    tokens=77,
    vocabulary=0,
)
MODELS = {"tiny": (TINY, torch.float32), "sd15": (SD15, torch.float16)}
"""Architecture of each size, and the type in which its weights are stored."""


def ours(
    model: Path, batch: int, dtype: str, iterations: int, work: Workload, device: str
) -> dict[str, Any]:
    """The workload through `ddpo.trainer.train`, measured by whole iterations."""
    from ddpo.trainer import config_for, train
    from ddpo.trainer.monitoring.events import IterationDone

    config = config_for(
        {
            "model": str(model),
            "reward": "compressibility",
            "iterations": iterations + 1,
            "dtype": dtype,
            "device": device,
            "checkpoint_every": 10**6,
            "grid_every": 10**6,
            "sample": {
                "samples": work.images,
                "per_prompt": 1,
                "steps": work.steps,
                "guidance": 5.0,
                "batch": batch,
            },
            "optim": {
                "updates": work.updates,
                "timesteps": 0,
                "skip_last": 0,
                "lr": 3e-4,
                "clip_range": 1e-4,
            },
            "adapt": {"rank": 4, "alpha": 4},
            "advantage": {"kind": "per_prompt", "buffer": 16, "min_count": 16},
        }
    )
    marks: list[tuple[float, float]] = []
    sampling: list[float] = []
    deviations: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        for event in train(config, Path(folder) / "run"):
            if isinstance(event, IterationDone):
                synchronize(device)
                marks.append((time.perf_counter(), time.process_time()))
                sampling.append(event.metrics.seconds_sampling)
                deviations.append(event.metrics.ratio_first_deviation or 0.0)
    if device == "cpu" and any(deviations):
        raise SystemExit("the ratio is not 1")
    return {
        "wall": [after[0] - before[0] for before, after in zip(marks, marks[1:], strict=False)],
        "cpu": [after[1] - before[1] for before, after in zip(marks, marks[1:], strict=False)],
        "sampling": sampling[1:],
        "peak_mb": peak_mb(device),
        "ratio_deviation": max(deviations),
    }


def measured(row: str, options: argparse.Namespace, model: Path) -> dict[str, Any]:
    """The result of one process of a row."""
    row, _, dtype = row.partition("/")
    who, _, batch = row.partition(":")
    here = Path(__file__)
    dtype = dtype or "float32"
    if who in THEIRS:
        precision = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}[dtype]
        command = [
            here.with_name("reference_loop.py"),
            options.checkout,
            model,
            batch,
            options.iterations,
            precision,
            THEIRS[who],
        ]
        command += [options.size, options.device]
    else:
        command = [
            here,
            options.checkout,
            "--model",
            model,
            "--iterations",
            options.iterations,
            "--ours",
            batch,
            dtype,
        ]
        command += ["--size", options.size, "--device", options.device]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(options.threads),
        "MKL_NUM_THREADS": str(options.threads),
    }
    if options.device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""  # accelerate takes a GPU wherever it sees one
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{row}: {done.stderr[-3000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def table(rows: dict[str, list[dict[str, Any]]], images: int) -> str:
    """The medians of each row per image, and their ratios to the first row.

    Args:
        rows: Results by row.
        images: Number of images of an iteration.
    """

    def per_image(name: str, key: str) -> float:
        return statistics.median(value for run in rows[name] for value in run[key]) / images * 1000

    first = next(iter(rows))
    lines = [
        "| row | ms per image | sampling | processor ms | ratio, wall "
        "| ratio, processor | peak MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, runs in rows.items():
        wall = per_image(name, "wall")
        cpu = per_image(name, "cpu")
        peak = max(run["peak_mb"] for run in runs)
        ratios = f"{per_image(first, 'wall') / wall:.2f} | {per_image(first, 'cpu') / cpu:.2f}"
        sampling = per_image(name, "sampling")
        lines.append(
            f"| {name} | {wall:.0f} | {sampling:.0f} | {cpu:.0f} | {ratios} | {peak:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measures all rows, or runs as one of the measured processes."""
    options = arguments()
    if options.ours:
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        batch, dtype = options.ours
        work = WORKLOADS[options.size]
        print(
            json.dumps(
                ours(options.model, int(batch), dtype, options.iterations, work, options.device)
            )
        )
        return
    with tempfile.TemporaryDirectory() as folder:
        model = options.model or Path(folder)
        if options.model is None:
            size, stored = MODELS[options.size]
            write_model(size, model, stored)
        rows: dict[str, list[dict[str, Any]]] = {name: [] for name in options.rows.split(",")}
        for _ in range(options.rounds):
            for name, runs in rows.items():
                runs.append(measured(name, options, model))
                name_of_device = (
                    torch.cuda.get_device_name()
                    if options.device == "cuda"
                    else platform.processor() or platform.machine()
                )
                machine = {
                    "machine": name_of_device,
                    "torch": torch.__version__,
                    "threads": options.threads,
                    "size": options.size,
                }
                options.out.write_text(json.dumps({**machine, "rows": rows}, indent=1))
                print(
                    f"{name}: {[round(value, 2) for value in runs[-1]['wall']]} s", file=sys.stderr
                )
    print(table(rows, WORKLOADS[options.size].images))


if __name__ == "__main__":
    main()
