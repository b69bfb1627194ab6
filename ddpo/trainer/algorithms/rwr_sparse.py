"""RWR-sparse: the model is fitted again to the best tenth of each prompt's images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ddpo.trainer.algorithms.rwr import ROUND, Regression
from ddpo.trainer.config import RegressionConfig
from ddpo.trainer.recipe import merged

if TYPE_CHECKING:
    from ddpo.trainer.advantages import Floats, SampleWeights

__all__ = ["RWR_SPARSE"]


def _top(rewards: Floats, prompt_ids: Sequence[str], config: RegressionConfig) -> SampleWeights:
    """1 for images that are kept, 0 for the others."""
    from ddpo.trainer.regression import top_weights  # numpy slows a mistyped command

    return top_weights(rewards, prompt_ids, config)


RWR_SPARSE = Regression(
    "regression on the best tenth of each prompt's images, rounds of collecting and fitting",
    merged(ROUND, {"optim": {"updates": 1, "epochs": 40}}),
    _top,
)
