"""Several rewards, each compared within its prompt before their weighted sum.

A plain sum of rewards learns from the reward with the largest spread, and hardly from a rare one.

Sources: Tencent-Hunyuan/MixGRPO, `multi_reward_mix = advantage_aggr`; X-GenGroup/Flow-Factory,
`advantage_aggregation = gdpo`. That summed rewards stall: yifan123/flow_grpo issue 142.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ddpo.errors import ConfigError
from ddpo.rewards.scoring.compose import without_weight
from ddpo.rewards.scoring.resolve import ResolvedReward
from ddpo.trainer.advantages import Floats, group
from ddpo.trainer.config import TrainConfig
from ddpo.types import RewardOutput

__all__ = ["check_combination", "compared_rewards"]


def check_combination(config: TrainConfig, reward: ResolvedReward) -> None:
    """Checks that there are several rewards to add, if each is to be compared on its own.

    Raises:
        ConfigError: the reward is a single one, or is combined otherwise.
    """
    if config.advantage.combine == "advantages" and reward.combination != "sum":
        raise ConfigError(
            f"advantage.combine='advantages' adds the advantages of several rewards, and "
            f"{config.reward!r} is no sum of rewards: set advantage.combine='rewards'"
        )


def compared_rewards(
    config: TrainConfig, reward: ResolvedReward, output: RewardOutput, prompt_ids: Sequence[str]
) -> Floats:
    """The rewards that advantages are computed from, float64 `[batch]`, NaN where unscorable.

    With `advantage.combine = "advantages"` it is Σ w (r - mean) / (std + 1e-6) over the parts of
    the reward, with mean and standard deviation over the prompt's images. A part without spread
    adds nothing.

    Args:
        config: settings of the run.
        reward: reward that is trained on.
        output: its scores of all images of the iteration.
        prompt_ids: prompt id of each image, `[batch]`.
    """
    rewards: Floats = output.values.cpu().double().numpy()
    if config.advantage.combine == "rewards":
        return rewards
    ids = np.array(prompt_ids)
    scored = ~np.isnan(rewards)
    total = np.where(scored, 0.0, np.nan)
    for part in reward.parts:
        scores = without_weight(part, output.parts[part.name]).numpy()
        weight = 1.0 if part.weight is None else part.weight
        total += weight * np.nan_to_num(group(scores, ids, scored), nan=0.0)
    return total
