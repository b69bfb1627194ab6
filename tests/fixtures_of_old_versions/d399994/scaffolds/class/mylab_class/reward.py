"""How `mylab/class` scores."""

import torch
from ddpo.types import ImageBatch, RewardOutput

from mylab_class.cards import CARD


class Reward:
    """The variance of the grey levels of a picture.

    Args:
        border: pixels at each edge that do not count.
    """

    card = CARD

    def __init__(self, border: int = 0) -> None:
        self.border = border

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        """One value per picture, in order; `batch.pixels` is float32 `[batch, 3, height, width]` in [0, 1]."""
        height, width = batch.size
        inner = batch.pixels[:, :, self.border : height - self.border, self.border : width - self.border]
        grey = inner.mean(dim=1).flatten(start_dim=1)
        values: torch.Tensor = (grey - grey.mean(dim=1, keepdim=True)).square().mean(dim=1)
        return RewardOutput(values)
