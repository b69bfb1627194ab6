"""Samples and scores the images of one iteration, and keeps their denoising paths."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from ddpo.distributed import World
from ddpo.errors import ConfigError, RewardFailure, TrainingDiverged
from ddpo.io.background import Background
from ddpo.policies.policy import Policy
from ddpo.policies.sampler import SampleKey, SamplerSettings, sample_trajectory
from ddpo.rewards.scoring.resolve import ResolvedReward
from ddpo.rewards.scoring.results import Chunk, concatenate
from ddpo.rewards.scoring.scorer import Scorer
from ddpo.trainer.config import SampleConfig, TrainConfig
from ddpo.trainer.monitoring.events import Progress
from ddpo.trainer.reward_parts import check_combination, compared_rewards
from ddpo.trainer.windows import check_window, noisy_steps
from ddpo.types import Context, ImageBatch, Prompt, RewardOutput, Rollout, Trajectory

__all__ = [
    "Collection",
    "IterationSamples",
    "check_rollout",
    "check_scorable",
    "draw_keys",
    "joined",
    "sample_shard",
    "sampler_settings",
]

HEADROOM: Final = 0.1
"""Share of a GPU's memory that stays free while a reward and the sampler share it."""


@dataclass(frozen=True, slots=True)
class IterationSamples:
    """The samples of one iteration: keys and rewards of all images, paths of this process's.

    Attributes:
        keys: keys of all images, in order.
        own: this process's denoising paths, prompts and rewards.
        rewards: rewards of all images, in order.
        seconds: time that sampling and scoring took.
    """

    keys: Sequence[SampleKey]
    own: Rollout
    rewards: RewardOutput
    seconds: float

    @property
    def reward_values(self) -> NDArray[np.float64]:
        """Rewards of all images, float64 `[images]`, NaN where unscorable."""
        return self.rewards.values.cpu().double().numpy()

    def compared_rewards(self, config: TrainConfig, reward: ResolvedReward) -> NDArray[np.float64]:
        """The rewards that advantages are computed from, as of the function of this name."""
        return compared_rewards(config, reward, self.rewards, self.prompt_ids)

    @property
    def prompt_ids(self) -> list[str]:
        """Prompt id of each image, `[images]`."""
        return [key.prompt.id for key in self.keys]


def check_rollout(config: TrainConfig, reward: ResolvedReward, likelihood: str) -> None:
    """Checks that windows fit the algorithm, and a comparison of several rewards the reward.

    Args:
        config: settings of the run.
        reward: reward that is trained on.
        likelihood: kind of the algorithm's items.

    Raises:
        ConfigError: one does not fit.
    """
    check_window(config, likelihood)
    check_combination(config, reward)


def sampler_settings(config: SampleConfig) -> SamplerSettings:
    """The part of the settings that the sampler needs."""
    return SamplerSettings(
        steps=config.steps,
        guidance=config.guidance,
        eta=config.eta,
        batch=config.batch,
        transition=config.transition,
        grid=config.grid,
        size=config.size,
    )


def sample_shard(config: SampleConfig, world: World) -> range:
    """Indices of this process's images in an iteration: whole prompts, in order.

    Args:
        config: numbers of images.
        world: the processes of the run.

    Raises:
        ConfigError: the prompts cannot be split equally.
    """
    prompts = config.samples // config.per_prompt
    if prompts % world.world_size:
        raise ConfigError(
            f"{world.world_size} processes cannot share {prompts} prompts × {config.per_prompt} "
            "images equally: make sample.samples a multiple of "
            f"{world.world_size * config.per_prompt}"
        )
    size = config.samples // world.world_size
    return range(world.rank * size, (world.rank + 1) * size)


def draw_keys(
    prompts: Sequence[Prompt],
    config: SampleConfig,
    seed: int,
    iteration: int,
    weights: Sequence[int] | None = None,
) -> list[SampleKey]:
    """Keys of an iteration's images: `samples / per_prompt` prompts, `per_prompt` images each.

    Prompts come in cycles. Each is sampled as often as its weight, in random order, before the next
    cycle starts. The keys depend on the seed and the iteration alone, so a resumed run has those
    that it would have had.

    Args:
        prompts: prompt list of the run.
        config: numbers of images.
        seed: seed of the run.
        iteration: 1-based iteration number.
        weights: times that each prompt is sampled in a cycle; None: once.
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
        index = (cycle * count + copy) * config.per_prompt
        keys += [SampleKey(prompt, index + image) for image in range(config.per_prompt)]
    return keys


class Collection:
    """This process's images of one iteration, sampled and scored batch by batch.

    An image is dropped once it is scored: training needs its denoising path or its last latents.
    If a reward leaves the policy's device idle, the next batch is sampled in the meantime. That
    holds on the policy's own GPU too, once `room_for_both` finds room there. Scores come from the
    same calls, in the same order.

    Args:
        policy: the policy that samples.
        keys: keys of the images.
        scorer: scorer of the reward.
        config: the sampler's settings.
        seed: seed of the noise.
        context: circumstances of the scoring, for the reward.
        whole_paths: True to keep all latents of a path, False to keep only the last.
        windows: steps with noise of each image, as of `window_steps`; None: all have noise.
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
        windows: NDArray[np.int64] | None = None,
    ) -> None:
        self._policy = policy
        self._keys = keys
        self._settings = sampler_settings(config)
        self._seed = seed
        self._branches = config.branches
        self._noisy = None if windows is None else noisy_steps(windows, config.steps)
        self._context = context
        self._scorer = scorer
        self._scores: list[RewardOutput] = []  # of each batch
        self._overlapped = leaves_idle(scorer, policy.device)
        self._under_way: Background[RewardOutput] | None = None
        self._done = 0
        kept = config.steps + 1 if whole_paths else 1
        self._latents = torch.empty(
            (len(keys), kept, *policy.latent_shape),
            dtype=policy.storage_dtype,
            device=policy.device,
        )
        self._log_probs = torch.empty((len(keys), config.steps), device=policy.device)

    def first_batch(self) -> Rollout:
        """At most `config.batch` images, sampled and scored; called before `rest`.

        Raises:
            RewardUnavailable: the reward's back end does not answer.
            RewardFailure: the reward is broken.
            TrainingDiverged: an image is not finite.
        """
        images = self._sample_batch()
        rewards = self._score(images)
        place = slice(0, len(images))
        return Rollout(
            Trajectory(self._latents[place], self._log_probs[place]), images.prompts, rewards
        )

    def rest(self) -> Generator[Progress, None, Rollout]:
        """Samples and scores what is left; yields progress, returns the rollout of all images.

        Raises:
            RewardFailure, TrainingDiverged: as `first_batch`.
        """
        self._overlapped = self._overlapped or room_for_both(self._policy.device)
        while self._done < len(self._keys):
            self._hand_over(self._sample_batch())
            yield Progress("sampling", self._done, len(self._keys))
        self._wait()
        prompts = tuple(key.prompt for key in self._keys)
        return Rollout(Trajectory(self._latents, self._log_probs), prompts, self._rewards())

    def _sample_batch(self) -> ImageBatch:
        """Samples the next batch and keeps its latents and log-probs."""
        part = self._keys[self._done : self._done + self._settings.batch]
        noisy = None if self._noisy is None else self._noisy[self._done : self._done + len(part)]
        found = sample_trajectory(
            self._policy,
            part,
            self._settings,
            self._seed,
            noisy=noisy,
            branches=self._branches,
        )
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
            RewardFailure: the reward failed on each of them.
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
        """Has `images` scored, after the batch that may be under way."""
        self._wait()
        if self._overlapped:
            self._under_way = Background(lambda: self._score(images), "ddpo-rollout-scores")
        else:
            self._score(images)

    def _wait(self) -> None:
        """Waits for the batch that is being scored."""
        if self._under_way is not None:
            self._under_way.result()
            self._under_way = None


def leaves_idle(scorer: Scorer, device: torch.device) -> bool:
    """True if the policy's device is idle while the reward scores.

    That is so for a server, and for a reward on the CPU beside a GPU. On the same CPU the two would
    slow each other down.
    """
    return scorer.waits or (device.type != "cpu" and scorer.reward.card.device == "cpu")


def room_for_both(device: torch.device) -> bool:
    """True if a CUDA device has memory for a call of a reward beside a call of the sampler.

    Twice the most that any call took so far has to fit, with a tenth of the memory to spare. Both
    use one stream, so that each computes what it would compute alone. Other devices do not report
    how much is free, so there the two take turns.
    """
    if device.type != "cuda":
        return False
    held = torch.cuda.memory_allocated(device)
    call = torch.cuda.max_memory_allocated(device) - held
    free, total = torch.cuda.mem_get_info(device)
    unused = free + torch.cuda.memory_reserved(device) - held
    return 2 * call <= unused - HEADROOM * total


def _check_finite(latents: torch.Tensor, pixels: torch.Tensor) -> None:
    """Raises `TrainingDiverged` if an image is not finite.

    A reward may score images of NaN, all alike; the run would then learn nothing.
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
    """The scores of several processes in one; a part that a process lacks is NaN there."""
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
    """The scores, of which at least one is known.

    Raises:
        RewardFailure: no image could be scored.
    """
    if bool(rewards.values.isnan().all()):
        raise RewardFailure(
            f"the reward could score none of {len(rewards.values)} images; "
            f"the first: {rewards.errors[0]}"
        )
    return rewards
