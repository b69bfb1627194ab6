"""Check that a reward scores alike on the CPU and an accelerator, and its speed there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from ddpo.doctor.measuring import float32_precision
from ddpo.doctor.row import Outcome
from ddpo.rewards.card import RewardCard
from ddpo.rewards.check.reward_under_test import tolerance_of
from ddpo.rewards.models.shared_encoders import forget_embeddings
from ddpo.rewards.scoring.scorer import Scorer
from ddpo.rewards.tools.bench import bench, bench_images, make_on, probe_prompt
from ddpo.rewards.zoo import ResolvedReward
from ddpo.types import ImageBatch

__all__ = ["compare_scores", "reward_speed", "scores_agree", "unsuited"]

IMAGES: Final = 8
SIDE: Final = 128  # pixels


def unsuited(card: RewardCard) -> str:
    """The reason why a reward is not compared between devices; "" if it is compared."""
    if card.device == "cpu":
        return "runs on the CPU only"
    if "metadata" in card.inputs:
        return "needs metadata of the prompt"
    return ""


def scores_agree(reward: ResolvedReward, device: str) -> Outcome:
    """Check that eight generated images score alike on the CPU and on the device.

    TF32 is off. The reward is made anew for each device and released before the next.
    """
    images = bench_images(IMAGES, SIDE)
    with float32_precision(tf32=False):
        expected = _scores(reward, images, "cpu")
        found = _scores(reward, images, device)
    return compare_scores(expected, found, tolerance_of(reward.card.dtype))


def _scores(reward: ResolvedReward, images: NDArray[np.uint8], device: str) -> list[float]:
    forget_embeddings()
    scorer = Scorer(make_on(reward, device), batch_size=len(images))
    batch = ImageBatch.of_uint8(images, [probe_prompt(scorer.reward)] * len(images))
    if torch.device(device).type != "cpu":
        batch = ImageBatch(batch.pixels.to(device), batch.prompts)
    try:
        return scorer.score(batch).values.tolist()
    finally:
        scorer.close()


def compare_scores(expected: Sequence[float], found: Sequence[float], share: float) -> Outcome:
    """Check that scores agree within a share of the largest score.

    Args:
        expected: Scores on the CPU; NaN where an image has none.
        found: Scores of the same images on the accelerator.
        share: Tolerance as a share of the largest absolute score on the CPU.
    """
    scored = [value for value in expected if not math.isnan(value)]
    if not scored:
        return Outcome("failed", note="none of the images could be scored on the CPU")
    tolerance = share * max(abs(value) for value in scored)
    if [math.isnan(value) for value in expected] != [math.isnan(value) for value in found]:
        values: dict[str, float | int | str | None] = {"tolerance": tolerance}
        return Outcome("failed", values, "other images are unscorable than on the CPU")
    pairs = zip(expected, found, strict=True)
    largest = max(abs(a - b) for a, b in pairs if not math.isnan(a))
    values = {
        "largest_difference": largest,
        "tolerance": tolerance,
        "largest_score": max(abs(value) for value in scored),
    }
    if largest <= tolerance:
        return Outcome("ok", values)
    return Outcome("failed", values, "the scores differ by more than the tolerance of its dtype")


def reward_speed(
    reward: ResolvedReward,
    device: str,
    batch_sizes: Sequence[int],
    images: int,
    side: int,
) -> Outcome:
    """The images per second of a reward at its best batch size, decoding left out.

    Args:
        reward: Resolved reward with its options.
        device: Torch device.
        batch_sizes: Numbers of images per call to try.
        images: Number of images in a round.
        side: Width and height of the images in pixels.
    """
    pixels = bench_images(images, side)
    records = list(bench(make_on(reward, device), pixels, batch_sizes, device, repeats=3))
    best = max(records, key=lambda record: record.rate)
    peak = best.peak_memory_mb if best.peak_gpu_mb is None else best.peak_gpu_mb
    values = {
        "images_per_s": best.rate,
        "batch": best.batch_size,
        "peak_mb": peak,
        "image_px": side,
        "share_outside_reward": best.outside,
    }
    return Outcome("measured", values)
