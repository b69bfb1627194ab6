"""A judge of shape: a small classifier of the 133 nouns that never sees true colours.

It is trained on fresh renderings, never on samples of the model. Each rendering is grey or has
shuffled hues, and is mildly blurred and noisy. Coloured blobs fool a judge trained on colour; this
one depends on shape and shading.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ddpo.io.tensors import load_tensors, save_tensors
from ddpo.rewards.scenes.world import NOUNS
from pretraining.render import Renderer

__all__ = ["Judge", "train_judge"]

BATCH: Final = 128
LUMA: Final = (0.299, 0.587, 0.114)  # BT.601


def _block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
        nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class Judge(nn.Module):
    """A classifier from canonical pixels `[batch, 3, 64, 64]` to the logits of `NOUNS`."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 24, 48, 96, 160)
        self.body = nn.Sequential(
            *(_block(a, b, 2) for a, b in zip(widths, widths[1:], strict=False))
        )
        self.head = nn.Linear(widths[-1] * 16, len(NOUNS))

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits `[batch, 133]`."""
        logits: Tensor = self.head(self.body(pixels * 2 - 1).flatten(1))
        return logits

    @torch.no_grad()
    def name(self, pixels: Tensor) -> NDArray[np.int64]:
        """The index in `NOUNS` of the most likely noun of each image, `[batch]`."""
        self.eval()
        parts = [self(part).argmax(1) for part in pixels.split(BATCH)]
        return torch.cat(parts).numpy()


def without_color(pixels: Tensor, rng: np.random.Generator) -> Tensor:
    """The images without their true colours, `[batch, 3, height, width]` in [0, 1].

    Each image is grey, or has permuted channels and a hue rotated by a random angle.
    """
    changed = []
    luma = torch.tensor(LUMA).view(3, 1, 1)
    axis = torch.full((3,), 3**-0.5)
    for image in pixels:
        if rng.random() < 0.5:
            changed.append((image * luma).sum(0, keepdim=True).expand(3, -1, -1))
        else:
            shuffled = image[torch.from_numpy(rng.permutation(3))]
            turn = _rotation(axis, float(rng.random() * 2 * np.pi))
            changed.append(torch.einsum("ij,jhw->ihw", turn, shuffled).clamp(0, 1))
    return torch.stack(changed)


def _rotation(axis: Tensor, angle: float) -> Tensor:
    """Rodrigues' rotation matrix about a unit axis.

    About the grey axis, it rotates the hue and preserves the mean of the channels.
    """
    x, y, z = axis.tolist()
    cross = torch.tensor([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return torch.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross


def blur(pixels: Tensor, sigma: float) -> Tensor:
    """The images `[batch, 3, height, width]` with a Gaussian blur of `sigma` pixels."""
    reach = max(2, round(3 * sigma))
    offsets = torch.arange(-reach, reach + 1).float()
    kernel = torch.softmax(-(offsets**2) / (2 * sigma**2), 0)
    weight = torch.outer(kernel, kernel).expand(3, 1, -1, -1)
    padded = nn.functional.pad(pixels, (reach,) * 4, mode="reflect")
    return nn.functional.conv2d(padded, weight, groups=3)


def _roughen(pixels: Tensor, rng: np.random.Generator) -> Tensor:
    """The images with a blur of up to 1 pixel and noise of up to 0.03, both random.

    Without them, the softness of samples would mislead the judge.
    """
    blurred = blur(pixels, float(rng.random()) + 1e-3)
    noise = torch.from_numpy(rng.standard_normal(pixels.shape).astype(np.float32))
    return (blurred + 0.03 * float(rng.random()) * noise).clamp(0, 1)


def draw_batch(renderer: Renderer, rng: np.random.Generator, count: int) -> tuple[Tensor, Tensor]:
    """Fresh renderings: pixels `[count, 3, 64, 64]` in [0, 1] and noun indices `[count]`."""
    names = list(NOUNS)
    drawings = [renderer.draw(rng) for _ in range(count)]
    levels = torch.from_numpy(np.stack([drawing.pixels for drawing in drawings]))
    pixels = levels.permute(0, 3, 1, 2).float() / 255
    return pixels, torch.tensor([names.index(drawing.noun) for drawing in drawings])


def train_judge(
    renderer: Renderer, steps: int, seed: int, path: Path | None = None
) -> Iterator[tuple[int, float, Judge]]:
    """Trains a judge and yields (step, accuracy on the batch, judge).

    With `path`, a finished judge with the same steps and seed is reused.
    """
    torch.manual_seed(seed)
    judge = Judge()
    note = {"steps": str(steps), "seed": str(seed)}
    if path and path.exists():
        tensors, metadata = load_tensors(path)
        if metadata == note:
            judge.load_state_dict(tensors)
            yield steps, float("nan"), judge
            return
    optimizer = torch.optim.AdamW(judge.parameters(), lr=3e-3, weight_decay=0.02)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=steps)
    for step in range(1, steps + 1):
        rng = np.random.default_rng([seed, 7, step])
        pixels, labels = draw_batch(renderer, rng, BATCH)
        judge.train()
        logits = judge(_roughen(without_color(pixels, rng), rng))
        loss = nn.functional.cross_entropy(logits, labels, label_smoothing=0.05)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        rates.step()
        yield step, float((logits.argmax(1) == labels).float().mean()), judge
    if path:
        save_tensors(path, judge.state_dict(), note)
