"""Advantages of every kind against hand-worked sequences."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ddpo.trainer.advantages import PromptStatistics, SampleWeights, advantages
from ddpo.trainer.config import AdvantageConfig


def weigh(
    rewards: np.ndarray,
    prompts: list[str],
    statistics: PromptStatistics | None = None,
    kind: str = "per_prompt",
) -> SampleWeights:
    config = AdvantageConfig(kind=kind, clip=5.0)  # type: ignore[arg-type]
    return advantages(rewards, prompts, statistics or PromptStatistics(8, 8), config)


def test_below_min_count_the_whole_batch_is_the_baseline() -> None:
    """Rewards 1, 2, 3, 6: mean 3, population variance (4 + 1 + 0 + 9) / 4 = 3.5."""
    found = weigh(np.array([1.0, 2.0, 3.0, 6.0]), ["a", "a", "b", "b"], PromptStatistics(8, 3))
    std = math.sqrt(3.5) + 1e-6
    assert found.values.tolist() == pytest.approx([-2 / std, -1 / std, 0.0, 3 / std])


def test_from_min_count_the_prompts_own_rewards_are_the_baseline_new_ones_included() -> None:
    """Prompt a has 1, 3 from before and gets 5, 7: mean 4, population variance 5.

    Prompt b has one reward only, so the statistics of the batch stand in.
    """
    statistics = PromptStatistics(8, 4)
    weigh(np.array([1.0, 3.0]), ["a", "a"], statistics)
    found = weigh(np.array([5.0, 7.0, 9.0]), ["a", "a", "b"], statistics)
    own = math.sqrt(5.0) + 1e-6
    batch = math.sqrt(8 / 3) + 1e-6
    assert found.values.tolist() == pytest.approx([1 / own, 3 / own, 2 / batch])


def test_the_buffer_forgets_the_oldest() -> None:
    """Buffer 2: after 1, 2, 10 the statistics are those of 2 and 10: mean 6, std 4."""
    statistics = PromptStatistics(2, 2)
    weigh(np.array([1.0, 2.0]), ["a", "a"], statistics)
    found = weigh(np.array([10.0]), ["a"], statistics)
    assert found.values.tolist() == pytest.approx([4 / (4 + 1e-6)])


def test_unscorable_images_are_excluded_and_get_no_advantage() -> None:
    """Without the NaN the batch is 1, 3: mean 2, std 1."""
    found = weigh(np.array([1.0, math.nan, 3.0]), ["a", "a", "b"], PromptStatistics(8, 8))
    assert found.values.tolist() == pytest.approx([-1 / (1 + 1e-6), 0.0, 1 / (1 + 1e-6)])
    assert found.scored.tolist() == [True, False, True]


def test_equal_rewards_have_no_spread_and_are_counted() -> None:
    found = weigh(np.array([2.0, 2.0, 2.0]), ["a", "a", "a"], PromptStatistics(8, 2))
    assert found.values.tolist() == [0.0, 0.0, 0.0]
    assert found.zero_spread == 3


def test_advantages_are_clipped() -> None:
    rewards = np.array([0.0] * 99 + [1000.0])
    assert weigh(rewards, ["a"] * 100, PromptStatistics(200, 500)).values.max() == 5.0


def test_the_state_round_trips() -> None:
    statistics = PromptStatistics(2, 2)
    weigh(np.array([1.0, 2.0, 3.0]), ["a", "a", "b"], statistics)
    again = PromptStatistics(2, 2)
    again.load_state(statistics.to_state())
    assert again == statistics
    assert again.to_state() == {"a": [1.0, 2.0], "b": [3.0]}


def test_batch_advantages_compare_with_all_images() -> None:
    """Rewards 1, 2, 3, 6: mean 3, population variance 3.5; the NaN counts nowhere."""
    found = weigh(np.array([1.0, 2.0, math.nan, 3.0, 6.0]), ["a", "a", "a", "b", "b"], kind="batch")
    std = math.sqrt(3.5) + 1e-6
    assert found.values.tolist() == pytest.approx([-2 / std, -1 / std, 0.0, 0.0, 3 / std])
    assert found.zero_spread == 0


def test_group_advantages_compare_with_the_same_prompt_in_this_iteration() -> None:
    """Group a: 1, 3, mean 2, std 1. Group b: 5, 5, no spread. Group c: one image alone."""
    found = weigh(np.array([1.0, 5.0, 3.0, 5.0, 9.0]), ["a", "b", "a", "b", "c"], kind="group")
    assert found.values.tolist() == pytest.approx([-1 / (1 + 1e-6), 0.0, 1 / (1 + 1e-6), 0.0, 0.0])
    assert found.zero_spread == 3


def test_leave_one_out_advantages_keep_the_rewards_scale() -> None:
    """Group a: 1 against (2 + 6) / 2, 2 against (1 + 6) / 2, 6 against (1 + 2) / 2."""
    found = weigh(np.array([1.0, 2.0, 6.0, 4.0]), ["a", "a", "a", "b"], kind="leave_one_out")
    assert found.values.tolist() == pytest.approx([-3.0, -1.5, 4.5, 0.0])


def test_groups_leave_the_running_statistics_alone() -> None:
    statistics = PromptStatistics(8, 8)
    weigh(np.array([1.0, 2.0]), ["a", "a"], statistics, kind="group")
    assert statistics.to_state() == {}
