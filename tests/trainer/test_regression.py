"""Weights of reward-weighted regression, worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ddpo.trainer.config import RegressionConfig
from ddpo.trainer.regression import softmax_weights, top_weights


def test_weights_are_a_softmax_per_prompt_of_mean_one() -> None:
    """β = 0.2 as in the paper.

    Prompt a has rewards 0 and 5 ln 3, so weights 1 : 3, times 2 / 4. Prompt b alone has 1.
    """
    rewards = np.array([0.0, 100.0, 5 * math.log(3)])
    found = softmax_weights(rewards, ["a", "b", "a"], RegressionConfig(beta=0.2, scale="reward"))
    assert found.values.tolist() == pytest.approx([0.5, 1.0, 1.5])


def test_in_standard_deviations_the_scale_of_the_reward_is_nothing() -> None:
    """Rewards 1 and 3 of one prompt: standard deviation 1, so β (r - r_max) is -2 and 0."""
    weight = math.exp(-2)
    for scale in (1.0, 1000.0):
        found = softmax_weights(
            scale * np.array([1.0, 3.0]), ["a", "a"], RegressionConfig(beta=1.0, scale="std")
        )
        assert found.values.tolist() == pytest.approx([2 * weight / (1 + weight), 2 / (1 + weight)])


def test_unscorable_images_have_no_weight_and_huge_rewards_no_overflow() -> None:
    found = softmax_weights(
        np.array([1e6, math.nan, 0.0]), ["a", "a", "a"], RegressionConfig(beta=1.0, scale="reward")
    )
    assert found.values.tolist() == [2.0, 0.0, 0.0]
    assert found.counted.tolist() == [True, False, True]


def test_equal_rewards_weigh_the_same_and_are_counted_as_flat() -> None:
    found = softmax_weights(np.array([2.0, 2.0]), ["a", "a"], RegressionConfig())
    assert found.values.tolist() == [1.0, 1.0]
    assert found.zero_spread == 2


def test_the_best_tenth_of_each_prompt_is_kept() -> None:
    """Ten images of each of two prompts on scales a thousand times apart.

    numpy's 90 % quantile lies between the two best.
    """
    rewards = np.concatenate([np.arange(10.0), 1000 * np.arange(10.0)])
    found = top_weights(rewards, ["a"] * 10 + ["b"] * 10, RegressionConfig(keep=0.1))
    assert np.flatnonzero(found.values).tolist() == [9, 19]
    assert found.counted.tolist() == (found.values > 0).tolist()


def test_a_prompt_without_spread_keeps_nothing() -> None:
    found = top_weights(
        np.array([1.0, 1.0, 1.0, 2.0]), ["a", "a", "b", "b"], RegressionConfig(keep=0.5)
    )
    assert found.values.tolist() == [0.0, 0.0, 0.0, 1.0]
    assert found.zero_spread == 2
