"""Each reward compared on its own before the weighted sum, and the standard deviations of GRPO."""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ddpo.errors import ConfigError
from ddpo.rewards.zoo import resolve
from ddpo.trainer.advantages import PromptStatistics, advantages
from ddpo.trainer.config import AdvantageConfig, TrainConfig
from ddpo.trainer.loop import train
from ddpo.trainer.recipe import config_from_dict
from ddpo.trainer.reward_parts import check_combination, compared_rewards
from ddpo.types import RewardOutput

NAN = float("nan")
IDS = ["a", "a", "a", "b", "b", "b"]
SUM = "colorfulness:2 + darkness:-0.5"


def settings(reward: str = SUM, combine: str = "advantages", **advantage: Any) -> TrainConfig:
    return config_from_dict({"reward": reward, "advantage": {"combine": combine} | advantage})


def output(colorful: list[float], dark: list[float]) -> RewardOutput:
    parts = {"colorfulness": torch.tensor(colorful), "darkness": torch.tensor(dark)}
    values = 2 * parts["colorfulness"] - 0.5 * parts["darkness"]
    errors = ["not scored" if math.isnan(value) else None for value in values.tolist()]
    return RewardOutput(values, parts, tuple(errors))


def standard(values: list[float]) -> list[float]:
    """z-scores of a list, by Python's own statistics."""
    mean = statistics.fmean(values)
    spread = statistics.pstdev(values)
    return [(value - mean) / (spread + 1e-6) if spread else 0.0 for value in values]


def test_each_part_is_standardised_in_its_prompt_before_the_sum() -> None:
    """A part in thousands weighs no more than one in thousandths, only its weight counts."""
    colorful = [1000.0, 3000.0, 2000.0, 5.0, 5.0, 5.0]
    dark = [0.001, 0.002, 0.009, 0.004, 0.002, 0.003]
    found = compared_rewards(settings(), resolve(SUM), output(colorful, dark), IDS)
    expected = [
        2 * bright - 0.5 * black
        for bright, black in zip(
            standard(colorful[:3]) + standard(colorful[3:]),
            standard(dark[:3]) + standard(dark[3:]),
            strict=True,
        )
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_a_part_that_is_equal_in_a_prompt_leaves_the_others_alone() -> None:
    found = compared_rewards(
        settings(), resolve(SUM), output([5.0] * 6, [1.0, 2.0, 3.0, 1.0, 1.0, 1.0]), IDS
    )
    third = statistics.pstdev([1, 2, 3])
    np.testing.assert_allclose(found, [0.5 / third, 0, -0.5 / third, 0, 0, 0], rtol=1e-5)
    weights = advantages(found, IDS, PromptStatistics(1, 1), AdvantageConfig(std="none"))
    assert weights.zero_spread == 3


def test_an_unscorable_image_is_in_no_mean() -> None:
    colorful = [1.0, NAN, 3.0, 1.0, 2.0, 3.0]
    found = compared_rewards(
        settings(), resolve(SUM), output(colorful, [1.0, 50.0, 1.0, 1.0, 1.0, 1.0]), IDS
    )
    assert np.isnan(found).tolist() == [False, True, False, False, False, False]
    np.testing.assert_allclose(found[[0, 2]], [-2, 2], rtol=1e-5)


def test_z_and_clamp_come_before_the_comparison() -> None:
    reward = "colorfulness:clamp=..2 + darkness"
    found = compared_rewards(
        settings(reward), resolve(reward), output([1.0, 2.0, 90.0], [0.0] * 3), ["a"] * 3
    )
    np.testing.assert_allclose(found, standard([1.0, 2.0, 2.0]), rtol=1e-4)


def test_without_the_setting_the_rewards_are_those_of_the_sum() -> None:
    scores = output([1.0, 2.0, 3.0], [3.0, 2.0, 7.0])
    found = compared_rewards(settings(combine="rewards"), resolve(SUM), scores, ["a"] * 3)
    assert found.tolist() == [0.5, 3.0, 2.5]


@pytest.mark.parametrize("reward", ["colorfulness", "min(colorfulness:1, darkness:1)"])
def test_there_must_be_several_rewards_to_add(reward: str) -> None:
    with pytest.raises(ConfigError, match=r"is no sum of rewards: set advantage\.combine"):
        check_combination(settings(reward), resolve(reward))
    check_combination(settings(reward, "rewards"), resolve(reward))


def test_group_advantages_are_divided_by_the_spread_of_the_iteration_or_by_nothing() -> None:
    rewards = np.array([1.0, 2.0, 6.0, 10.0, 10.0, 10.0])
    spread = statistics.pstdev(rewards.tolist())
    centred = np.array([-2.0, -1.0, 3.0, 0.0, 0.0, 0.0])
    for std, divisor in (("iteration", spread + 1e-6), ("none", 1.0)):
        config = config_from_dict({"advantage": {"std": std}}).advantage
        found = advantages(rewards, IDS, PromptStatistics(1, 1), config)
        np.testing.assert_allclose(found.values, centred / divisor, rtol=1e-12)
        assert found.zero_spread == 3
        assert found.counted.all()


def test_unscorable_rewards_are_in_no_spread() -> None:
    rewards = np.array([1.0, NAN, 3.0, 5.0, 5.0, NAN])
    config = AdvantageConfig(std="iteration")
    found = advantages(rewards, IDS, PromptStatistics(1, 1), config)
    spread = statistics.pstdev([1.0, 3.0, 5.0, 5.0])
    np.testing.assert_allclose(found.values, np.array([-1, 0, 1, 0, 0, 0]) / spread, rtol=1e-5)
    assert found.scored.tolist() == [True, False, True, True, True, False]


@pytest.mark.parametrize("kind", ["batch", "per_prompt", "leave_one_out"])
def test_other_kinds_have_their_own_spread(kind: str) -> None:
    with pytest.raises(
        ConfigError, match=f"with advantage.kind='{kind}' set advantage.std='group'"
    ):
        config_from_dict({"advantage": {"kind": kind, "std": "iteration"}})


def test_a_run_learns_from_each_reward(tiny_model: Path, tmp_path: Path) -> None:
    """The advantages of the run are those of its own metrics: it ends without an error."""
    values = {
        "model": str(tiny_model),
        "reward": "colorfulness + darkness:0.5",
        "iterations": 1,
        "sample": {"samples": 8, "per_prompt": 4, "steps": 3, "batch": 4},
        "optim": {"updates": 2, "timesteps": 2},
        "advantage": {"combine": "advantages", "std": "none"},
    }
    list(train(config_from_dict(values), tmp_path / "each"))
    list(train(config_from_dict(values | {"advantage": {}}), tmp_path / "sum"))
    states = [
        (tmp_path / name / "state" / "state.safetensors").read_bytes() for name in ("each", "sum")
    ]
    assert states[0] != states[1]
    values["reward"] = "colorfulness"
    with pytest.raises(ConfigError, match="is no sum of rewards"):
        list(train(config_from_dict(values), tmp_path / "one"))
    assert not (tmp_path / "one").exists()
