"""The parts of a run, made from its settings: prompts, reward, algorithm, policy, state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ddpo.distributed import World
from ddpo.errors import ConfigError
from ddpo.policies import find_policy
from ddpo.policies.policy import Policy
from ddpo.policies.sampler import SampleKey, coefficients_of
from ddpo.prompts import load_prompts
from ddpo.rewards.scoring.scorer import make_scorer
from ddpo.rewards.zoo import resolve as resolve_reward
from ddpo.trainer.adapted import adapted_policy
from ddpo.trainer.algorithms import load_algorithm, needs_of
from ddpo.trainer.config import TrainConfig
from ddpo.trainer.likelihoods import DenoisingLikelihood, Likelihood, TransitionLikelihood
from ddpo.trainer.monitoring.findings import cut_prompts, summary
from ddpo.trainer.rollout import Collection, check_rollout, draw_keys, sample_shard
from ddpo.trainer.run.held_out import HeldOutReward
from ddpo.trainer.run.manifest import check_unchanged, describe, placed
from ddpo.trainer.run.resume import Changes
from ddpo.trainer.state import TrainingState
from ddpo.trainer.windows import window_steps
from ddpo.types import Context, Rollout

__all__ = ["TrainingSetup"]


class TrainingSetup:
    """The parts of a run. An iteration changes `state` and the policy's parameters, nothing else.

    Args:
        config: settings of the run.
        world: the processes of the run.
        changes: settings of a resumed run that are not what they were.
        model: present place of the base model; None if it is where the settings say.

    Raises:
        UserError: a setting does not fit the others, or a name or file cannot be found.
    """

    def __init__(
        self,
        config: TrainConfig,
        world: World,
        changes: Changes | None = None,
        model: str | None = None,
    ) -> None:
        place = model or config.model
        self.config = config
        self.world = world
        self.changes = changes or {}
        self.shard = sample_shard(config.sample, world)
        self.algorithm, algorithm_origin = load_algorithm(config.algorithm)
        self.algorithm.check(config)
        if config.sample.transition == "ode" and self.algorithm.likelihood == "transition":
            raise ConfigError(
                f"sample.transition = 'ode' has no noise, and the algorithm {config.algorithm!r} "
                "trains on the log-probs of noisy steps: choose flow_sde, dance_sde or cps"
            )
        self.prompts = load_prompts(config.prompts).first(config.prompt_limit or None)
        self.reward = resolve_reward(config.reward).on(world.device)
        if "group" in self.reward.card.inputs and config.sample.batch % config.sample.per_prompt:
            raise ConfigError(
                f"reward {config.reward!r} compares the images of a prompt with each other: "
                f"sample.batch ({config.sample.batch}) must be a multiple of "
                f"sample.per_prompt ({config.sample.per_prompt})"
            )
        check_rollout(config, self.reward, self.algorithm.likelihood)
        self.cut_prompts = cut_prompts(place, self.prompts)
        self.scorer = make_scorer(self.reward)
        self.held_out = (
            HeldOutReward(config, self.reward, world.device) if config.held_out else None
        )
        self.policy = adapted_policy(config, world.device, place)
        self.origins = {"algorithm": algorithm_origin, "model": find_policy(place)[1]}
        self.state = TrainingState(self.policy, config, world)
        self.coefficients = coefficients_of(self.policy, config.sample)

    def keys(self, iteration: int) -> list[SampleKey]:
        """Keys of all images of an iteration, in order."""
        return draw_keys(
            self.prompts.prompts,
            self.config.sample,
            self.config.seed,
            iteration,
            self.prompts.weights,
        )

    def collection(self, iteration: int) -> Collection:
        """This process's images of an iteration, none of them sampled yet."""
        config = self.config
        keys = self.keys(iteration)[self.shard.start : self.shard.stop]
        return Collection(
            self.policy,
            keys,
            self.scorer,
            config.sample,
            config.seed,
            Context(progress=(iteration - 1) / config.iterations),
            whole_paths=self.algorithm.likelihood == "transition",
            windows=window_steps(config, iteration, [key.prompt.id for key in keys]),
        )

    def likelihood(
        self,
        policy: Policy,
        rollout: Rollout,
        iteration: int,
        first: int = 0,
        prompt_ids: Sequence[str] | None = None,
    ) -> Likelihood:
        """Log-likelihoods of the items that the algorithm trains on.

        Args:
            policy: the policy that is trained.
            rollout: this process's samples.
            iteration: 1-based iteration number.
            first: index in the iteration of the rollout's first image.
            prompt_ids: prompt id of each image of the iteration; None: there is only the rollout.
        """
        needs = needs_of(self.algorithm)
        if self.algorithm.likelihood == "denoising":
            return DenoisingLikelihood(policy, rollout, self.config, iteration, first, needs)
        ids = prompt_ids or [prompt.id for prompt in rollout.prompts]
        windows = window_steps(self.config, iteration, ids)
        return TransitionLikelihood(
            policy, rollout, self.coefficients, self.config, first, needs, windows
        )

    def summary(self) -> str:
        """The effective batch of the run in words."""
        return summary(self.config, self.policy, self.prompts, self.world)

    def manifest(self, folder: Path, reward: str) -> dict[str, Any]:
        """The facts that identify the run, for `manifest.json`.

        Args:
            folder: the run folder.
            reward: expression of the reward as its user wrote it.
        """
        facts = describe(
            self.config, self.reward, self.prompts, self.origins, self.world.world_size
        )
        return placed(facts, folder, reward)

    def check_unchanged(self, before: Mapping[str, Any]) -> None:
        """Compares the parts of a resumed run with its manifest.

        Raises:
            ConfigError: the run was made of something else when it was started.
        """
        check_unchanged(before, self.config, self.reward, self.prompts, self.origins)
