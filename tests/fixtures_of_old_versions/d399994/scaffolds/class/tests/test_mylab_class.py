"""`mylab/class`, by the conformance kit and by scores that are known from elsewhere."""

import pytest
import torch
from ddpo.rewards.check import conformance_tests
from ddpo.types import ImageBatch, Prompt

from mylab_class.reward import Reward

test_conforms = conformance_tests("mylab/class")


def test_scores_known_by_hand() -> None:
    pixels = torch.zeros(2, 3, 4, 4)
    pixels[1, :, :2] = 1.0  # the upper half is white: variance 1/4
    batch = ImageBatch(pixels, [Prompt(""), Prompt("")])
    assert Reward()(batch).values.tolist() == pytest.approx([0.0, 0.25])
    pixels[1, :, 0] = 0.5  # of the border, which then does not count
    assert Reward(border=1)(batch).values.tolist() == pytest.approx([0.0, 0.25])
