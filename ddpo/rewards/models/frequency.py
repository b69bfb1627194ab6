"""High-frequency energy: the share of the spectrum's power in fine detail."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from ddpo.rewards.cards import CARDS
from ddpo.rewards.models.luma import each, luma
from ddpo.types import ImageBatch, RewardOutput

__all__ = ["HighFrequency", "high_frequency_share"]

HALF_NYQUIST: Final = 0.25  # cycles per pixel; Nyquist is 0.5
FLAT: Final = 1e-9
"""Squared luma per pixel, a thousandth of half a level of 8 bits; keeps the share of a flat image
at 0."""


def high_frequency_share(pixels: Tensor) -> Tensor:
    """Share of the power of luma at frequencies √(fx² + fy²) above half of Nyquist.

    The mean is subtracted. A Hann window keeps the step from one border to the opposite one out of
    the spectrum. `[batch, 3, height, width]` in [0, 1] → float64 `[batch]` in [0, 1]; 0 where the
    image is flat. Differentiable.

    Source: Blackman & Tukey, "The measurement of power spectra", Bell System Technical Journal 37
    (1958), for the windowed periodogram.
    """
    return each(_share, pixels)


def _share(image: Tensor) -> Tensor:
    plane = luma(image)
    height, width = plane.shape
    window = torch.outer(_hann(height, plane), _hann(width, plane))
    apart = plane - (window * plane).sum() / window.sum()
    spectrum = torch.view_as_real(torch.fft.rfft2(window * apart)).square().sum(-1)
    times = torch.full_like(spectrum[0], 2.0)  # the half that is not computed mirrors this one …
    times[0] = 1.0  # … but for the column of frequency 0
    if width % 2 == 0:
        times[-1] = 1.0  # … and that of Nyquist
    power = spectrum * times / (window.square().sum() * height * width)
    down = torch.fft.fftfreq(height, dtype=plane.dtype, device=plane.device)
    right = torch.fft.rfftfreq(width, dtype=plane.dtype, device=plane.device)
    fine = (down[:, None].square() + right.square() > HALF_NYQUIST**2).to(plane.dtype)
    share: Tensor = (power * fine).sum() / (power.sum() + FLAT)
    return share


def _hann(side: int, like: Tensor) -> Tensor:
    """sin²(π (i + ½) / side), which is symmetric and never 0, not even for a side of one pixel."""
    place = (torch.arange(side, dtype=like.dtype, device=like.device) + 0.5) / side
    return torch.sin(torch.pi * place).square()


class HighFrequency:
    """Share of fine detail in the spectrum: noise and grain score high, smooth images near 0."""

    card = CARDS["high_frequency"]

    def __call__(self, batch: ImageBatch) -> RewardOutput:
        """Scores `batch`; gradients flow to `batch.pixels`."""
        return RewardOutput(high_frequency_share(batch.pixels).float())
