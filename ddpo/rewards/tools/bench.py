"""Speed and memory of a reward, and the share of the time spent outside its calls."""

from __future__ import annotations

import contextlib
import resource
import statistics
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ddpo.devices import check_device, synchronize
from ddpo.errors import ConfigError, RewardFailure
from ddpo.images import load_image
from ddpo.rewards.base import Reward
from ddpo.rewards.fixtures import FIXTURES, draw_fixture
from ddpo.rewards.models.shared_encoders import forget_embeddings
from ddpo.rewards.scoring.scorer import Scorer
from ddpo.rewards.zoo import ResolvedReward
from ddpo.types import ImageBatch, Prompt, RewardOutput

__all__ = [
    "BenchRecord",
    "bench",
    "bench_images",
    "busy_seconds",
    "fitted_images",
    "make_on",
    "probe_prompt",
    "process_peak_mb",
    "reset_peak_memory",
]

PROMPT: Final = Prompt("a photograph of a cat that plays chess with a horse in a sunny garden")


def probe_prompt(reward: object) -> Prompt:
    """The prompt of measurements: the reward's first of `probe_prompts`, else the same for all."""
    texts: Sequence[str] = getattr(reward, "probe_prompts", ())
    return Prompt(texts[0]) if texts else PROMPT


NOISE: Final = (0, 4, 16, 64)  # greatest change of a level, in turns


@dataclass(frozen=True, slots=True)
class BenchRecord:
    """Measurements of one batch size on one device; rates in images per second over the repeats."""

    reward: str
    device: str
    batch_size: int
    images: int
    side: int  # pixels
    repeats: int
    rate: float  # median
    rate_low: float
    rate_high: float
    outside: float  # share of the time in which no call of the reward was running, median
    peak_memory_mb: float  # of the process, in units of 10⁶ bytes
    peak_gpu_mb: float | None  # allocated by torch; None on the CPU

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def bench_images(count: int, side: int) -> NDArray[np.uint8]:
    """Fixture images of one size with none to strong noise: uint8 `[count, side, side, 3]`.

    No two are equal.
    """
    random = np.random.default_rng(0)
    names = sorted(FIXTURES)
    fitted = [_fit(Image.fromarray(draw_fixture(name)), side) for name in names]
    images = np.empty((count, side, side, 3), np.uint8)
    for index in range(count):
        level = NOISE[index // len(names) % len(NOISE)]
        noise = random.integers(-level, level + 1, (side, side, 3), dtype=np.int16)
        images[index] = (fitted[index % len(names)] + noise).clip(0, 255)
        # no two are equal, whatever the noise
        images[index, 0, 0] = (index % 256, index // 256 % 256, 0)
    return images


def fitted_images(paths: Sequence[Path], count: int, side: int) -> NDArray[np.uint8]:
    """The images of files, in turns, cropped to squares: uint8 `[count, side, side, 3]`.

    Raises:
        ImageError: A file is not an image.
    """
    loaded = [_fit(load_image(path), side) for path in paths[:count]]
    return np.stack([loaded[index % len(loaded)] for index in range(count)])


def _fit(image: Image.Image, side: int) -> NDArray[np.uint8]:
    return np.asarray(ImageOps.fit(image, (side, side), Image.Resampling.BICUBIC))


def make_on(found: ResolvedReward, device: str) -> Reward:
    """The reward on a device, by its option "device"; without one it runs where the pixels are.

    Raises:
        ConfigError: There is no such device here, or the reward runs on the CPU only. Others as in
            `ResolvedReward.make`.
    """
    if "device" in found.options:
        return replace(found, options={**found.options, "device": device}).make()
    if found.card.device == "cpu" and device.partition(":")[0] != "cpu":
        raise ConfigError(f"reward {found.card.id!r} runs on the CPU only")
    check_device(device)
    return found.make()


def bench(
    reward: Reward,
    images: NDArray[np.uint8],
    batch_sizes: Sequence[int] = (1, 4, 16, 64),
    device: str = "cpu",
    repeats: int = 5,
) -> Iterator[BenchRecord]:
    """Measures a reward after a warm-up, the batch sizes in turns; one record per batch size.

    Args:
        reward: reward from `make_on`.
        images: decoded images, uint8 `[count, side, side, 3]`; reading files is not measured.
        batch_sizes: numbers of images per call.
        device: device of the reward, for the pixels and the memory.
        repeats: number of rounds, whose median counts.

    Raises:
        ConfigError: A batch size is below 1 or above the number of images, or there is no round.
        RewardFailure: The reward failed, or scored no image.
    """
    if repeats < 1:
        raise ConfigError(f"repeats must be at least 1, got {repeats}")
    if wrong := [size for size in batch_sizes if not 1 <= size <= len(images)]:
        raise ConfigError(
            f"batch size {wrong[0]} must be from 1 to the number of images, {len(images)}"
        )
    runs = {size: _Run(reward, images, size, device) for size in dict.fromkeys(batch_sizes)}
    for run in runs.values():
        run.warm_up()
    for _ in range(repeats):
        for run in runs.values():
            run.once()
        _check_scored(reward.card.id, runs.values())
    for run in runs.values():
        yield run.record()


def _check_scored(reward: str, runs: Iterable[_Run]) -> None:
    """Refuses measurements of a reward that scored no image, since it may have done nothing.

    Raises:
        RewardFailure: No run has a score; the message has the first reason.
    """
    reasons = [run.reason for run in runs]
    if all(reason is not None for reason in reasons):
        raise RewardFailure(f"reward {reward!r} could score no image: {reasons[0]}")


class _Run:
    """Scorer and measurements of one batch size."""

    def __init__(
        self, reward: Reward, images: NDArray[np.uint8], batch_size: int, device: str
    ) -> None:
        self._prompt = probe_prompt(reward)
        self._reward = _Watched(reward, device)
        self._images = images
        self._size = batch_size
        self._device = device
        self._scorer = Scorer(
            self._reward,
            batch_size,
            batch_pixels=batch_size * images.shape[1] * images.shape[2],
        )
        self._rates: list[float] = []
        self._outside: list[float] = []
        self._memory: list[float] = []
        self._gpu: list[float] = []
        self.reason: str | None = "no image was scored yet"  # why no image of a round has a score

    def warm_up(self) -> None:
        self._scorer.score(self._batch(self._size))

    def _batch(self, count: int) -> ImageBatch:
        batch = ImageBatch.of_uint8(self._images[:count], [self._prompt] * count)
        if _on_cpu(self._device):
            return batch
        return ImageBatch(batch.pixels.to(self._device), batch.prompts)

    def once(self) -> None:
        batch = self._batch(len(self._images))
        self._reward.calls.clear()
        forget_embeddings()  # those of the last round would be looked up instead of computed
        reset_peak_memory(self._device)
        start = time.perf_counter()
        output = self._scorer.score(batch)
        seconds = time.perf_counter() - start
        self.reason = _reason_without_scores(output)
        self._rates.append(len(batch) / seconds)
        self._outside.append(1 - busy_seconds(self._reward.calls) / seconds)
        self._memory.append(process_peak_mb())
        if not _on_cpu(self._device):
            self._gpu.append(torch.accelerator.max_memory_allocated(self._device) / 1e6)

    def record(self) -> BenchRecord:
        self._scorer.close()
        return BenchRecord(
            reward=self._reward.card.id,
            device=self._device,
            batch_size=self._size,
            images=len(self._images),
            side=self._images.shape[1],
            repeats=len(self._rates),
            rate=statistics.median(self._rates),
            rate_low=min(self._rates),
            rate_high=max(self._rates),
            outside=statistics.median(self._outside),
            peak_memory_mb=max(self._memory),
            peak_gpu_mb=max(self._gpu) if self._gpu else None,
        )


def _reason_without_scores(output: RewardOutput) -> str | None:
    """The first reason why images have no score; None if any has one."""
    if not bool(output.values.isnan().all()):
        return None
    return next(filter(None, output.errors), "it gave no reason")


class _Watched:
    """A reward whose calls are timed, from any number of threads."""

    def __init__(self, reward: Reward, device: str) -> None:
        self.card = reward.card
        self.calls: list[tuple[float, float]] = []  # start and end of each
        self._reward = reward
        self._device = device
        self._lock = Lock()

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        start = time.perf_counter()
        output = self._reward(batch)
        synchronize(torch.device(self._device))  # running kernels are part of the reward's time
        with self._lock:
            self.calls.append((start, time.perf_counter()))
        return output


def busy_seconds(calls: Sequence[tuple[float, float]]) -> float:
    """The time in which at least one call (start, end) was running: the union of the intervals."""
    total = 0.0
    reached = float("-inf")
    for start, end in sorted(calls):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def _on_cpu(device: str) -> bool:
    return torch.device(device).type == "cpu"


def reset_peak_memory(device: str) -> None:
    """Resets the peak memory of the device and of this process to the current use.

    Other systems than Linux keep the peak of the process since its start.
    """
    if not _on_cpu(device):
        torch.accelerator.reset_peak_memory_stats(device)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM: proc(5)


def process_peak_mb() -> float:
    """Peak memory of this process since `reset_peak_memory`, in units of 10⁶ bytes."""
    try:
        line = next(
            line
            for line in Path("/proc/self/status").read_text().splitlines()
            if line.startswith("VmHWM:")
        )
        return int(line.split()[1]) * 1024 / 1e6
    except (OSError, StopIteration):
        unit = 1 if sys.platform == "darwin" else 1024  # getrusage(2): bytes on macOS, KiB on Linux
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
