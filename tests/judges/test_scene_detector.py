"""The training of the detector of scenes: targets by hand, free places, and its first steps."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ddpo.rewards.models.scene_detector import THINGS, SceneDetector, load_detector
from pretraining.augmentation import random_maps, warped
from pretraining.judge_training import JudgeRun, train
from pretraining.render import FONT_PATHS
from pretraining.scene_detector import (
    NEAREST,
    RATES,
    Detecting,
    Target,
    _cells,
    _mapped,
    free_places,
    train_detector,
)
from pretraining.scene_renderer import SceneRenderer

needs_font = pytest.mark.skipif(
    not any(Path(path).is_file() for path in FONT_PATHS), reason="Noto Color Emoji is missing"
)


def test_presence_is_a_gaussian_around_the_nearest_figure() -> None:
    first = Target(0, -100, 1.5 / 8, 2.5 / 8)
    second = Target(1, -100, 6.5 / 8, 2.5 / 8)
    near, owner = _cells([[], [first, second]])
    assert near[0].max() == 0
    assert near[1, 2, 1] == pytest.approx(1)
    assert near[1, 2, 2] == pytest.approx(math.exp(-1 / (2 * 0.75**2)))
    assert owner[1, 2].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]


def test_a_figure_moves_with_its_image() -> None:
    maps = random_maps(np.random.default_rng(3), 8, 0.06, 0.12)
    pixels = torch.zeros(8, 3, 64, 64)
    pixels[:, :, 20:24, 40:44] = 1
    for image, each in zip(warped(pixels, maps), maps, strict=True):
        (moved,) = _mapped([Target(0, 0, 42 / 64, 22 / 64)], each)
        mass = image[0] / image[0].sum()
        places = (torch.arange(64) + 0.5) / 64
        assert moved.x == pytest.approx(float((mass.sum(0) * places).sum()), abs=0.01)
        assert moved.y == pytest.approx(float((mass.sum(1) * places).sum()), abs=0.01)


def test_free_figures_keep_their_distance() -> None:
    sizes = set()
    for seed in range(50):
        spots = [spot for _, spot in free_places(np.random.default_rng(seed))]
        sizes.add(len(spots))
        for place, one in enumerate(spots):
            for other in spots[:place]:
                assert math.hypot(one.x - other.x, one.y - other.y) >= NEAREST
    assert sizes >= {1, 2, 3, 4}


@needs_font
@pytest.mark.slow
def test_a_few_steps_lower_the_loss_of_the_detector(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = SceneDetector()
    detecting = Detecting(model, SceneRenderer())
    run = JudgeRun("scene_detector", tmp_path, 24, 8)
    losses = train(
        run,
        nn.ModuleDict({"detector": model}),
        lambda rng, count: detecting(np.random.default_rng(4), count),
        RATES,
    )
    assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])


@needs_font
@pytest.mark.slow
def test_a_trained_detector_is_written_for_the_reward(tmp_path: Path) -> None:
    assert len(train_detector(JudgeRun("scene_detector", tmp_path, 2, 4))) == 2
    file = tmp_path / "judge" / "model.safetensors"
    assert file.stat().st_size < 2e6
    presence, things, colors, ground = load_detector(file)(torch.zeros(2, 3, 64, 64))
    assert presence.shape == (2, 8, 8)
    assert things.shape == (2, len(THINGS), 8, 8)
    assert (colors.shape, ground.shape) == ((2, 11, 8, 8), (2, 15))
