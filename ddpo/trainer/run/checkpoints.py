"""Which checkpoints stay on the disk: the last few, and the best by a reward that is not trained on.

The best by the *training* reward would be the one that games it most. A held-out reward on held-out prompts, always from the same
noise, tells apart checkpoints by what they learned.
"""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Final

from ddpo.devices import AUTO
from ddpo.errors import ConfigError
from ddpo.io.atomic import write_json
from ddpo.io.json_files import Fields, read_json
from ddpo.io.lock import in_use
from ddpo.policies.checkpoints.folder import BEST_FILE, POLICY_FILE
from ddpo.policies.policy import Policy
from ddpo.policies.sampler import SampleKey, sample_images
from ddpo.prompts import load_prompts
from ddpo.rewards.scoring.resolve import ResolvedReward, single_rewards
from ddpo.rewards.scoring.scorer import make_scorer
from ddpo.rewards.zoo import resolve as resolve_reward
from ddpo.trainer.config import TrainConfig
from ddpo.trainer.failures import storing
from ddpo.trainer.processes import ALONE, World
from ddpo.trainer.rollout import sampler_settings
from ddpo.types import ImageBatch

__all__ = ["HeldOutReward", "keep_best", "prune"]

PICTURES: Final = 2  # of each held-out prompt
BEST_FIELDS: Final[Fields] = {"folder": str, "iteration": int, "reward": str, "value": float}
FIRST_INDEX: Final = -1000  # of their noise: neither training (0 …) nor the grids (-1, -2) use it


class HeldOutReward:
    """The reward `held_out` on `held_out_prompts`, always from the same noise.

    Args:
        config: the settings of the run.
        training: the reward that is trained on.
        device: the device of the run, where the reward runs unless it names another.

    Raises:
        ConfigError: the reward is trained on, be it as a part of a sum.
        UserError: the reward or the prompts cannot be found or loaded.
    """

    def __init__(self, config: TrainConfig, training: ResolvedReward, device: str = AUTO) -> None:
        self.config = config
        reward = resolve_reward(config.held_out).on(device)
        if {(one.card.id, one.origin) for one in single_rewards(reward)} & {
            (one.card.id, one.origin) for one in single_rewards(training)
        }:
            raise ConfigError(
                f"held_out = {config.held_out!r} is trained on ({config.reward!r}): the best checkpoint by the training reward is the one "
                "that games it most; name another reward"
            )
        if "group" in reward.card.inputs:
            raise ConfigError(
                f"held_out = {config.held_out!r} ranks the pictures of a prompt among each other: it has no mean to compare"
            )
        self.scorer, self.signature = make_scorer(reward), reward.signature
        prompts = load_prompts(config.held_out_prompts).prompts
        self.keys = [
            SampleKey(prompt, FIRST_INDEX - copy) for prompt in prompts for copy in range(PICTURES)
        ]

    def score(self, policy: Policy, processes: World = ALONE) -> float | None:
        """The mean score of the policy's images, on the main process; None if none could be scored.

        The other processes join in calls of a denoiser that is sharded.

        Raises:
            RewardFailure: the reward broke.
        """
        if not (processes.main or processes.sharded):
            return None
        values: list[float] = []
        for batch in sample_images(
            policy, self.keys, sampler_settings(self.config.sample), self.config.seed
        ):
            with processes.in_step():
                values += self._known(batch) if processes.main else []
        return sum(values) / len(values) if values else None

    def _known(self, batch: ImageBatch) -> list[float]:
        """The scores of the images that can be scored."""
        levels = self.scorer.reward.card.pixels == "uint8"
        output = self.scorer.score(ImageBatch.off_device(batch.pixels, batch.prompts, levels))
        return [value for value in output.values.cpu().double().tolist() if not math.isnan(value)]


def keep_best(checkpoint: Path, iteration: int, reward: str, value: float) -> None:
    """Writes the checkpoint's name to `best.json` beside it, unless one before it was as good by the same reward.

    Args:
        checkpoint: its folder.
        iteration: of the checkpoint.
        reward: the signature of the held-out reward.
        value: its mean.

    Raises:
        StorageFailure: it cannot be written.
    """
    path = checkpoint.with_name(BEST_FILE)
    if path.exists():
        best = read_json(path, BEST_FIELDS)
        if best["reward"] == reward and best["iteration"] < iteration and best["value"] >= value:
            return
    with storing(path):
        write_json(
            path,
            {"folder": checkpoint.name, "iteration": iteration, "reward": reward, "value": value},
        )


def prune(checkpoints: Path, keep: int) -> None:
    """Removes all checkpoints but the last `keep` and the best one; 0 keeps all. Each is there as a whole or not at all.

    Those that an evaluation reads stay until it has ended and `prune` is called again.

    Raises:
        StorageFailure: one cannot be removed.
    """
    for rest in checkpoints.glob(".iteration-*.tmp"):  # of a kill
        shutil.rmtree(rest, ignore_errors=True)
    if not keep:
        return
    best = checkpoints / BEST_FILE
    kept = {read_json(best, BEST_FIELDS)["folder"]} if best.exists() else set()
    for folder in sorted(checkpoints.glob("iteration-*"))[:-keep]:
        if folder.name not in kept and not in_use(folder / POLICY_FILE):
            with storing(folder):
                gone = folder.rename(folder.with_name(f".{folder.name}.tmp"))
            shutil.rmtree(gone, ignore_errors=True)
