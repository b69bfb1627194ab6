"""Measures training against kvablack/ddpo-pytorch's loop for docs/performance.md.

`python tools/measure_training.py CHECKOUT --threads 1 --out speed.json`. Both train the same tiny random Stable Diffusion (64×64 pictures,
latents 4×16×16) with LoRA of rank 4 on JPEG compressibility: 16 pictures an iteration, 20 steps, guidance 5 in sampling and training, η 1,
2 updates. Each measurement is a process of its own; ours and theirs take turns, so that a slower moment of the machine hits both. Theirs
begins to count after the first sampling, ours after the first iteration.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

THEIRS = {"theirs": "plain", "fused": "fused"}  # → the attention of reference_loop.py


def arguments() -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path, help="a checkout of kvablack/ddpo-pytorch")
    parser.add_argument("--out", type=Path, default=Path("training_speed.json"), help="rows so far; the table is printed")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=3, help="counted, per process")
    parser.add_argument("--model", type=Path, default=None, help="a folder instead of the tiny random model")
    parser.add_argument("--rows", default="theirs:2,fused:2,fused:8,ours:16", help="who:pictures per call in training, dtype after a slash")
    parser.add_argument("--ours", nargs=2, metavar=("BATCH", "DTYPE"), help=argparse.SUPPRESS)
    return parser.parse_args()


def write_model(folder: Path) -> None:
    """The tiny random Stable Diffusion in diffusers' format."""
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    from ddpo.policies.emoji.tokenizer import write_tokenizer

    torch.manual_seed(0)
    size, length = write_tokenizer(folder / "tokenizer"), 77
    text = CLIPTextConfig(
        vocab_size=size, hidden_size=32, intermediate_size=37, num_hidden_layers=5, num_attention_heads=4, max_position_embeddings=length,
        bos_token_id=size - 2, eos_token_id=size - 1, pad_token_id=size - 1,
    )  # fmt: skip
    unet = UNet2DConditionModel(
        sample_size=16, block_out_channels=(32, 64), layers_per_block=1, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), cross_attention_dim=32,
    )  # fmt: skip
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3, block_out_channels=(32, 32, 64),
        layers_per_block=1, sample_size=64,
    )  # fmt: skip
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False, steps_offset=1
    )
    StableDiffusionPipeline(
        vae=vae, text_encoder=CLIPTextModel(text), tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer", model_max_length=length),
        unet=unet, scheduler=scheduler, safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    ).save_pretrained(folder)  # fmt: skip
    print(f"denoiser: {sum(p.numel() for p in unet.parameters()):,} parameters", file=sys.stderr)


def ours(model: Path, batch: int, dtype: str, iterations: int) -> dict[str, Any]:
    """The workload through `ddpo.trainer.train`, measured per iteration, all that an iteration does included."""
    from ddpo.trainer import config_for, train
    from ddpo.trainer.events import IterationDone

    config = config_for({
        "model": str(model), "reward": "compressibility", "iterations": iterations + 1, "dtype": dtype,
        "checkpoint_every": 10**6, "grid_every": 10**6,
        "sample": {"samples": 16, "per_prompt": 1, "steps": 20, "guidance": 5.0, "batch": batch},
        "optim": {"updates": 2, "timesteps": 0, "skip_last": 0, "lr": 3e-4, "clip_range": 1e-4}, "adapt": {"rank": 4, "alpha": 4},
        "advantage": {"kind": "per_prompt", "buffer": 16, "min_count": 16},
    })  # fmt: skip
    marks, sampling = [], []
    with tempfile.TemporaryDirectory() as folder:
        for event in train(config, Path(folder) / "run"):
            if isinstance(event, IterationDone):
                marks.append((time.perf_counter(), time.process_time()))
                sampling.append(event.metrics.seconds_sampling)
                if event.metrics.ratio_first_deviation != 0:
                    raise SystemExit("the ratio is not 1")
    return {
        "wall": [after[0] - before[0] for before, after in zip(marks, marks[1:], strict=False)],
        "cpu": [after[1] - before[1] for before, after in zip(marks, marks[1:], strict=False)],
        "sampling": sampling[1:],
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
    }


def measured(row: str, options: argparse.Namespace, model: Path) -> dict[str, Any]:
    """One process of a row."""
    row, _, dtype = row.partition("/")
    who, _, batch = row.partition(":")
    here, dtype = Path(__file__), dtype or "float32"
    if who in THEIRS:
        precision = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}[dtype]
        command = [here.with_name("reference_loop.py"), options.checkout, model, batch, options.iterations, precision, THEIRS[who]]
    else:
        command = [here, options.checkout, "--model", model, "--iterations", options.iterations, "--ours", batch, dtype]
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads), "MKL_NUM_THREADS": str(options.threads)}
    done = subprocess.run([sys.executable, *map(str, command)], env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{row}: {done.stderr[-3000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def table(rows: dict[str, list[dict[str, Any]]]) -> str:
    """Medians per picture, and the ratio to the first row, of processor seconds and of wall seconds."""

    def per_picture(name: str, key: str) -> float:
        return statistics.median(value for run in rows[name] for value in run[key]) / 16 * 1000

    first = next(iter(rows))
    lines = [
        "| row | ms per picture | sampling | processor ms | ratio, wall | ratio, processor | peak MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, runs in rows.items():
        wall, cpu, peak = per_picture(name, "wall"), per_picture(name, "cpu"), max(run["peak_mb"] for run in runs)
        ratios = f"{per_picture(first, 'wall') / wall:.2f} | {per_picture(first, 'cpu') / cpu:.2f}"
        lines.append(f"| {name} | {wall:.0f} | {per_picture(name, 'sampling'):.0f} | {cpu:.0f} | {ratios} | {peak:.0f} |")
    return "\n".join(lines)


def main() -> None:
    """Measures, or is one of the processes that are measured."""
    options = arguments()
    if options.ours:
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        batch, dtype = options.ours
        print(json.dumps(ours(options.model, int(batch), dtype, options.iterations)))
        return
    with tempfile.TemporaryDirectory() as folder:
        model = options.model or Path(folder)
        if options.model is None:
            write_model(model)
        rows: dict[str, list[dict[str, Any]]] = {name: [] for name in options.rows.split(",")}
        for _ in range(options.rounds):
            for name, runs in rows.items():
                runs.append(measured(name, options, model))
                machine = {"machine": platform.processor() or platform.machine(), "torch": torch.__version__, "threads": options.threads}
                options.out.write_text(json.dumps({**machine, "rows": rows}, indent=1))
                print(f"{name}: {[round(value, 2) for value in runs[-1]['wall']]} s", file=sys.stderr)
    print(table(rows))


if __name__ == "__main__":
    main()
