"""How `mylab/model` scores: a small network, with weights that are verified before they are read."""

from pathlib import Path

import torch
from ddpo import weights
from ddpo.types import ImageBatch, RewardOutput
from safetensors.torch import load_file
from torch import Tensor, nn

from mylab_model.cards import CARD, WEIGHTS


class Edges(nn.Module):
    """Four filters and their weighted mean: pixels `[batch, 3, height, width]` in [0, 1] to values `[batch]`."""

    def __init__(self) -> None:
        super().__init__()
        self.filters = nn.Conv2d(3, 4, kernel_size=3, padding=1, padding_mode="replicate", bias=False)
        self.head = nn.Linear(4, 1, bias=False)

    def forward(self, pixels: Tensor) -> Tensor:
        values: Tensor = self.head(self.filters(pixels).relu().mean(dim=(2, 3))).squeeze(1)
        return values


class Reward:
    """The strength of horizontal and vertical edges.

    Args:
        device: where the network runs.

    Raises:
        MissingResourceError: the weights are missing, or another file than the card says.
    """

    card = CARD

    def __init__(self, device: str = "cpu") -> None:
        path = Path(__file__).with_name("weights.safetensors")
        # From the hub instead: weights.fetch_hub_file("owner/name", "model.safetensors", WEIGHTS.revision, WEIGHTS.sha256, what)
        weights.verified(path, WEIGHTS.sha256 or "", "reward 'mylab/model' needs its weights, which")
        self.network = Edges()
        self.network.load_state_dict(load_file(path))
        self.network.eval().requires_grad_(False).to(device)
        self.device = device

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        """One value per picture, in order."""
        # One picture at a time: convolutions of whole batches may round differently, and a score must not depend on its batch mates.
        values = [self.network(picture[None].to(self.device)) for picture in batch.pixels]
        return RewardOutput(torch.cat(values) if values else torch.zeros(0))
