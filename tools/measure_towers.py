"""Compares the two packages that run the encoder of `aesthetic`: `python tools/measure_towers.py`.

Random weights of CLIP ViT-L/14 are written once in both formats. Then processes take turns, one for
each package and round, which make the reward and score images. Printed are medians over rounds.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TOWERS = ("transformers", "open_clip")
IMAGES = 8


def write_weights(folder: Path) -> None:
    """Writes a head, a checkpoint of transformers and one of OpenCLIP."""
    import open_clip
    from random_weights import write_clip, write_head
    from safetensors.torch import save_file

    write_head(folder / "head.pth")
    write_clip(folder / "transformers", "ViT-L/14", False)
    (folder / "open_clip").mkdir()
    model = open_clip.CLIP(**open_clip.get_model_config("ViT-L-14-quickgelu"))
    save_file(model.state_dict(), folder / "open_clip" / "model.safetensors")


class Moment:
    """The moment of its construction, on the wall clock and on the process's own."""

    def __init__(self) -> None:
        self.wall = time.perf_counter()
        self.cpu = time.process_time()

    def seconds_since(self) -> tuple[float, float]:
        """Wall and processor seconds since the moment."""
        return time.perf_counter() - self.wall, time.process_time() - self.cpu


def measure(folder: Path, tower: str) -> dict[str, float]:
    """Start-up, speed and memory of one package, in this process."""
    start = Moment()
    import numpy as np
    from random_weights import taken_for_real

    from ddpo.rewards.zoo import make_reward
    from ddpo.types import ImageBatch, Prompt

    with taken_for_real(False):
        clip = str(folder / tower / "model.safetensors")
        reward = make_reward("aesthetic", head=str(folder / "head.pth"), clip=clip, tower=tower)
    start_s, start_cpu_s = start.seconds_since()
    kept = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (2 * IMAGES, 512, 512, 3)).astype(np.uint8)
    starts = range(0, 2 * IMAGES, 4)
    batches = [ImageBatch.of_uint8(pixels[at : at + 4], [Prompt("")] * 4) for at in starts]
    for batch in batches[:2]:
        reward(batch)
    start = Moment()
    for batch in batches[2:]:
        reward(batch)
    image_s, image_cpu_s = start.seconds_since()
    return {
        "start_s": start_s,
        "start_cpu_s": start_cpu_s,
        "image_s": image_s / IMAGES,
        "image_cpu_s": image_cpu_s / IMAGES,
        "kept_mb": kept,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", nargs=2, metavar=("FOLDER", "TOWER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(Path(args.one[0]), args.one[1])))
        return
    rows: dict[str, list[dict[str, float]]] = {tower: [] for tower in TOWERS}
    with tempfile.TemporaryDirectory() as folder:
        write_weights(Path(folder))
        for _ in range(args.rounds):
            for tower in TOWERS:
                command = [sys.executable, __file__, "--one", folder, tower]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                rows[tower].append(json.loads(done.stdout.splitlines()[-1]))
    for name in rows["open_clip"][0]:
        first, second = (statistics.median(row[name] for row in rows[tower]) for tower in TOWERS)
        print(f"{name:12} transformers {first:9.3f}  open_clip {second:9.3f}  {second / first:.2f}")


if __name__ == "__main__":
    main()
