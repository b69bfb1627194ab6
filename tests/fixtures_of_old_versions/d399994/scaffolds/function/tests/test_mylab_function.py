"""`mylab/function`, by the conformance kit and by scores that are known from elsewhere."""

import numpy as np
import pytest
from ddpo.rewards.check import conformance_tests

from mylab_function.reward import brightness

test_conforms = conformance_tests("mylab/function")


def test_scores_known_by_hand() -> None:
    images = np.zeros((2, 4, 4, 3), np.uint8)
    images[1, :2] = 255  # the upper half is white
    assert brightness(images) == [0.0, 0.5]
    images[1] = 51  # a fifth of 255
    assert brightness(images, gamma=2.0) == pytest.approx([0.0, 0.04])
