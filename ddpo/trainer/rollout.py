"""Collects one iteration's trajectories, pictures and rewards."""

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
    """The pictures of an iteration: `samples / per_prompt` prompts, `per_prompt` pictures each.

    Prompts come in cycles: each is drawn as often as its weight (once, without weights), in random order, before the next cycle begins.
    Depends on the seed and the iteration alone, so that a resumed run draws what it would have drawn.

    Args:
        prompts: the list.
        config: how many pictures.
        seed: of the run.
        iteration: from 1.
        weights: how often each prompt is drawn in a cycle; None: once.
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
    """The pictures of one iteration, sampled and scored batch by batch.

    A picture is dropped when it is scored: what training needs is its path, or, for an algorithm that fits pictures, its last latents.
    While a reward is waited for that leaves the policy's device idle, the next batch is sampled; scores come in the same calls and order.

    Args:
        policy: what samples.
        keys: of the pictures.
        scorer: of the reward.
        config: the sampler's settings.
        seed: of the noise.
        context: what the reward is told.
        whole_paths: whether all latents of a path are kept, or only the last.
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
        """At most `config.batch` pictures, with their scores, of a collection that has none yet.

        Raises:
            RewardUnavailable: the reward's back end does not answer.
            RewardFailure: the reward is broken.
            TrainingDiverged: a picture is not finite.
        """
        images = self._next_pictures()
        rewards = self._score(images)
        place = slice(0, len(images))
        return Rollout(
            Trajectory(self._latents[place], self._log_probs[place]), images.prompts, rewards
        )

    def rest(self) -> Generator[Progress, None, Rollout]:
        """The batches that are left; yields progress, returns the rollout of all pictures. Raises as `first_batch`."""
        while self._done < len(self._keys):
            self._hand_over(self._next_pictures())
            yield Progress("sampling", self._done, len(self._keys))
        self._wait()
        prompts = tuple(key.prompt for key in self._keys)
        return Rollout(Trajectory(self._latents, self._log_probs), prompts, self._rewards())

    def _next_pictures(self) -> ImageBatch:
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
        """Has `images` scored after those before them, of which one batch at most is under way."""
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
    """Whether the policy's device has nothing to do while the reward is asked: it asks a server, or runs on the CPU beside a GPU.

    On one and the same device two would only get into each other's way, and into its memory.
    """
    return scorer.waits or (device.type != "cpu" and scorer.reward.card.device == "cpu")


def _check_finite(latents: torch.Tensor, pixels: torch.Tensor) -> None:
    """A reward may well score a picture of NaN, and all such pictures alike: the run would go on and learn nothing."""
    finite = torch.isfinite(latents).flatten(1).all(1) & torch.isfinite(pixels).flatten(1).all(1)
    finite = finite.cpu()
    if not bool(finite.all()):
        lost = int((~finite).sum())
        raise TrainingDiverged(
            f"{lost} of {len(finite)} pictures that the model drew are not finite (NaN or infinite); no step was taken"
        )


def joined(outputs: Sequence[RewardOutput]) -> RewardOutput:
    """The scores of several processes, one after the other; a part that one of them has not is NaN there."""
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
    """Raises `RewardFailure` if not one picture could be scored; else gives back the scores."""
    if bool(rewards.values.isnan().all()):
        raise RewardFailure(
            f"the reward could score none of {len(rewards)} images; the first: {rewards.errors[0]}"
        )
    return rewards
