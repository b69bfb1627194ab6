"""Collects the trajectories, images and rewards of one iteration."""

from __future__ import annotations

from collections.abc import Generator, Sequence

import numpy as np
import torch

from ddpo.errors import RewardFailure, TrainingDiverged
from ddpo.io.background import Background
from ddpo.policies.policy import Policy
from ddpo.policies.sampler import SampleKey, SamplerSettings, sample_trajectory
from ddpo.rewards.scoring.results import Chunk, concatenate
from ddpo.rewards.scoring.scorer import Scorer
from ddpo.trainer.config import SampleConfig
from ddpo.trainer.monitoring.events import Progress
from ddpo.types import Context, ImageBatch, Prompt, RewardOutput, Rollout, Trajectory

__all__ = ["Collection", "check_scorable", "draw_keys", "joined", "sampler_settings"]


def sampler_settings(config: SampleConfig) -> SamplerSettings:
    """The sampler's part of the settings."""
    return SamplerSettings(
        steps=config.steps, guidance=config.guidance, eta=config.eta, batch=config.batch
    )


def draw_keys(
    prompts: Sequence[Prompt],
    config: SampleConfig,
    seed: int,
    iteration: int,
    weights: Sequence[int] | None = None,
) -> list[SampleKey]:
    """The keys of an iteration's images: `samples / per_prompt` prompts, `per_prompt` images each.

    Prompts come in cycles. In each cycle every prompt is drawn as often as its weight, in random
    order. The keys depend only on the seed and the iteration, so that a resumed run draws the same.

    Args:
        prompts: Prompt list.
        config: Numbers of images.
        seed: Seed of the run.
        iteration: 1-based iteration number.
        weights: Draws of each prompt per cycle; None for one draw.
    """
    times = [1] * len(prompts) if weights is None else list(weights)
    places = [
        (prompt, copy, count)
        for prompt, count in zip(prompts, times, strict=True)
        for copy in range(count)
    ]
    groups = config.samples // config.per_prompt
    first = (iteration - 1) * groups
    cycles = range(first // len(places), (first + groups - 1) // len(places) + 1)
    orders = {
        cycle: np.random.default_rng([seed, 0, cycle]).permutation(len(places)) for cycle in cycles
    }
    keys = []
    for position in range(first, first + groups):
        cycle, place = divmod(position, len(places))
        prompt, copy, count = places[int(orders[cycle][place])]
        keys += [
            SampleKey(prompt, (cycle * count + copy) * config.per_prompt + i)
            for i in range(config.per_prompt)
        ]
    return keys


class Collection:
    """The images of one iteration, sampled and scored batch by batch.

    An image is dropped after scoring: training needs its trajectory, or only the last latents if
    the algorithm fits images. While a reward leaves the policy's device idle, the next batch is
    sampled; calls and scores stay in the same order.

    Args:
        policy: Policy to sample from.
        keys: Keys of the images.
        scorer: Scorer of the reward.
        config: Settings of the sampler.
        seed: Seed of the noise.
        context: State of training, for the reward.
        whole_paths: True to keep all latents of a trajectory, False for the last ones only.
    """

    def __init__(
        self,
        policy: Policy,
        keys: Sequence[SampleKey],
        scorer: Scorer,
        config: SampleConfig,
        seed: int,
        context: Context,
        whole_paths: bool = True,
    ) -> None:
        self._policy = policy
        self._keys = keys
        self._scorer = scorer
        self._settings = sampler_settings(config)
        self._seed = seed
        self._context = context
        self._overlapped = leaves_idle(scorer, policy.device)
        self._under_way: Background[RewardOutput] | None = None
        self._scores: list[RewardOutput] = []  # of each batch
        self._done = 0
        kept = config.steps + 1 if whole_paths else 1
        self._latents = torch.empty(
            (len(keys), kept, *policy.latent_shape),
            dtype=policy.storage_dtype,
            device=policy.device,
        )
        self._log_probs = torch.empty((len(keys), config.steps), device=policy.device)

    def first_batch(self) -> Rollout:
        """The first batch, with its scores, of a collection that has no images yet.

        Raises:
            RewardUnavailable: The reward's back end does not answer.
            RewardFailure: The reward is broken.
            TrainingDiverged: An image is not finite.
        """
        images = self._next_images()
        rewards = self._score(images)
        place = slice(0, len(images))
        return Rollout(
            Trajectory(self._latents[place], self._log_probs[place]), images.prompts, rewards
        )

    def rest(self) -> Generator[Progress, None, Rollout]:
        """Samples and scores the other batches, and returns the rollout of all images.

        Yields progress, and raises as `first_batch`.
        """
        while self._done < len(self._keys):
            self._hand_over(self._next_images())
            yield Progress("sampling", self._done, len(self._keys))
        self._wait()
        prompts = tuple(key.prompt for key in self._keys)
        return Rollout(Trajectory(self._latents, self._log_probs), prompts, self._rewards())

    def _next_images(self) -> ImageBatch:
        part = self._keys[self._done : self._done + self._settings.batch]
        found = sample_trajectory(self._policy, part, self._settings, self._seed)
        pixels = self._policy.decode(found.latents[:, -1])
        _check_finite(found.latents[:, -1], pixels)
        place = slice(self._done, self._done + len(part))
        self._latents[place] = found.latents[:, -self._latents.shape[1] :]
        self._log_probs[place] = found.log_probs
        self._done += len(part)
        prompts = tuple(key.prompt for key in part)
        levels = self._scorer.reward.card.pixels == "uint8"
        return ImageBatch.off_device(pixels, prompts, levels, self._context)

    def _score(self, images: ImageBatch) -> RewardOutput:
        """Scores one batch and keeps the scores.

        An image on which the reward fails while it scores others is unscorable.
        """
        output = self._scorer.score_unless_down(images)
        self._scores.append(output)
        return output

    def _rewards(self) -> RewardOutput:
        """The scores of all images so far, in order.

        Raises:
            RewardFailure: The reward failed on each of them.
        """
        chunks: list[Chunk] = []
        count = 0
        for output in self._scores:
            chunks.append((range(count, count + len(output)), output))
            count += len(output)
        found = concatenate(chunks, count, self._scorer.reward.card.id)
        if len(found.failed) == count:
            raise RewardFailure(
                f"the reward could score none of {count} images; the first: {found.errors[0]}"
            )
        return found

    def _hand_over(self, images: ImageBatch) -> None:
        """Scores `images`, in a thread if it is overlapped, after the batches before them."""
        self._wait()
        if self._overlapped:
            self._under_way = Background(lambda: self._score(images), "ddpo-rollout-scores")
        else:
            self._score(images)

    def _wait(self) -> None:
        if self._under_way is not None:
            self._under_way.result()
            self._under_way = None


def leaves_idle(scorer: Scorer, device: torch.device) -> bool:
    """True if the reward waits for a server, or runs on the CPU while the policy is on a GPU.

    On the same device, sampling and scoring would compete for compute and memory.
    """
    return scorer.waits or (device.type != "cpu" and scorer.reward.card.device == "cpu")


def _check_finite(latents: torch.Tensor, pixels: torch.Tensor) -> None:
    """Raises `TrainingDiverged` if an image is not finite.

    A reward may give all images of NaN the same score, so that the run would learn nothing.
    """
    finite = torch.isfinite(latents).flatten(1).all(1) & torch.isfinite(pixels).flatten(1).all(1)
    finite = finite.cpu()
    if not bool(finite.all()):
        lost = int((~finite).sum())
        raise TrainingDiverged(
            f"{lost} of {len(finite)} images that the model sampled are not finite "
            "(NaN or infinite); no step was taken"
        )


def joined(outputs: Sequence[RewardOutput]) -> RewardOutput:
    """The scores of several processes in order; a part that a process lacks is NaN there."""
    names = dict.fromkeys(name for output in outputs for name in output.parts)
    return RewardOutput(
        values=torch.cat([output.values for output in outputs]),
        parts={
            name: torch.cat(
                [o.parts.get(name, torch.full_like(o.values, torch.nan)) for o in outputs]
            )
            for name in names
        },
        errors=tuple(error for output in outputs for error in output.errors),
    )


def check_scorable(rewards: RewardOutput) -> RewardOutput:
    """The scores; raises `RewardFailure` if no image could be scored."""
    if bool(rewards.values.isnan().all()):
        raise RewardFailure(
            f"the reward could score none of {len(rewards)} images; the first: {rewards.errors[0]}"
        )
    return rewards
