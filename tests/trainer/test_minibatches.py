"""The items of each update."""

from __future__ import annotations

from typing import Any

import numpy as np

from ddpo.trainer.advantages import SampleWeights
from ddpo.trainer.config import TrainConfig
from ddpo.trainer.minibatches import plan_updates
from ddpo.trainer.recipe import config_from_dict


def config(**optim: Any) -> TrainConfig:
    return config_from_dict(
        {
            "sample": {"samples": 4, "per_prompt": 2, "steps": 5},
            "optim": {"updates": 1, "skip_last": 0, **optim},
        }
    )


def weights(values: list[float], counted: list[bool]) -> SampleWeights:
    return SampleWeights(np.array(values), np.array(counted), np.array(counted), 0)


ALL = weights([1.0, -1.0, 2.0, 0.5], [True] * 4)


def test_images_without_weight_are_left_out_but_count_in_the_mean() -> None:
    (items,) = plan_updates(
        weights([1.0, 0.0, -1.0, 0.0], [True, True, True, False]),
        config(timesteps=3, skip_last=2),
        iteration=1,
    )
    assert sorted(set(items.images.tolist())) == [0, 2]
    assert items.total == 9, (
        "the mean is over all counted images, of which one had nothing to teach"
    )
    for image in (0, 2):
        steps = items.steps[items.images == image].tolist()
        assert sorted(steps) == [0, 1, 2], "three of the five steps are left without the last two"


def test_a_window_of_steps_is_trained() -> None:
    (items,) = plan_updates(ALL, config(timesteps=0, skip_first=1, skip_last=2), iteration=1)
    assert set(items.steps.tolist()) == {1, 2}
    assert len(items) == 8


def test_every_epoch_passes_over_all_images_in_another_order() -> None:
    plan = plan_updates(ALL, config(timesteps=1, updates=2, epochs=3), iteration=1)
    assert len(plan) == 6
    for epoch in range(3):
        images = np.concatenate([items.images for items in plan[2 * epoch : 2 * epoch + 2]])
        assert sorted(images.tolist()) == [0, 1, 2, 3]
        assert {int(d) for items in plan[2 * epoch : 2 * epoch + 2] for d in items.draws} == {epoch}


def test_no_item_of_an_iteration_shares_its_noise_with_another() -> None:
    plan = plan_updates(
        ALL, config(timesteps=2, updates=2, epochs=3), iteration=1, noise_levels=1000
    )
    keys = [
        key
        for items in plan
        for key in zip(items.images.tolist(), items.draws.tolist(), strict=True)
    ]
    assert len(set(keys)) == len(keys) == 24


def test_noise_levels_are_sampled_evenly() -> None:
    many = weights([1.0] * 4000, [True] * 4000)
    (items,) = plan_updates(many, config(timesteps=1), iteration=1, noise_levels=1000)
    counts = np.histogram(items.steps, bins=10, range=(0, 1000))[0]
    assert set(np.unique(items.steps)) <= set(range(1000))
    assert 320 < counts.min() < counts.max() < 480, "400 each, ± 4 standard deviations of 19"


def test_what_does_not_count_takes_no_part_in_the_cut() -> None:
    """rwr_sparse trains on kept images only: two updates of one image each, not of two and none."""
    plan = plan_updates(
        weights([0.0, 1.0, 0.0, 1.0], [False, True, False, True]),
        config(timesteps=1, updates=2),
        iteration=1,
    )
    assert [len(items) for items in plan] == [1, 1]
    assert [items.total for items in plan] == [1, 1]


def test_the_plan_depends_on_the_seed_and_the_iteration_alone() -> None:
    first, again, other = (
        plan_updates(ALL, config(timesteps=2), iteration) for iteration in (1, 1, 2)
    )
    assert [items.steps.tolist() for items in first] == [items.steps.tolist() for items in again]
    assert [items.steps.tolist() for items in first] != [items.steps.tolist() for items in other]
