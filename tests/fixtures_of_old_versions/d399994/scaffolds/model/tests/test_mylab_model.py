"""`mylab/model`, by the conformance kit and by scores that are known from elsewhere."""

import pytest
import torch
from ddpo.rewards.check import conformance_tests
from ddpo.types import ImageBatch, Prompt

from mylab_model.reward import Reward

test_conforms = conformance_tests("mylab/model")


def test_scores_known_by_hand() -> None:
    # Levels rise by 1/8 per column: the gradient is 1/8 inside, and half of that in the first and last column.
    ramp = (torch.arange(8) / 8).expand(1, 3, 8, 8).contiguous()
    output = Reward()(ImageBatch(ramp, [Prompt("")]))
    assert output.values.tolist() == pytest.approx([(6 / 8 + 2 / 16) / 8])
