"""LPIPS v0.1 on AlexNet, the perceptual distance of two images, from the official files.

Features are scaled so that LPIPS is the squared distance of two vectors. With unit channel vectors
y of layer l at each of its H·W positions and the layer's non-negative weights w,
LPIPS(a, b) = Σ_l mean_hw Σ_c w_c (y_c(a) - y_c(b))², so that the vector is √(w_c / HW) · y_c.

Source: R. Zhang, P. Isola, A. A. Efros, E. Shechtman, O. Wang, "The Unreasonable Effectiveness of
Deep Features as a Perceptual Metric", CVPR 2018, https://arxiv.org/abs/1801.03924; constants from
richzhang/PerceptualSimilarity, lpips/lpips.py and lpips/__init__.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import conv2d, max_pool2d

from ddpo import weights
from ddpo.devices import for_float64
from ddpo.rewards.card import WeightFile
from ddpo.rewards.cards.diversity import ALEXNET, LPIPS_LINEAR
from ddpo.rewards.models.load_errors import load_errors_as

__all__ = ["Lpips", "load_lpips", "lpips_distances", "lpips_features", "lpips_inputs"]

SHIFT: Final = (-0.030, -0.088, -0.188)
SCALE: Final = (0.458, 0.448, 0.450)
EPSILON: Final = 1e-10  # added to the length of a channel vector


class Conv(NamedTuple):
    """One convolution of AlexNet, with a rectifier after it."""

    key: str  # of torchvision's state dict
    channels: int
    kernel: int
    inputs: int
    stride: int
    padding: int
    pool: bool  # True if a max pool, 3 wide with stride 2, comes before it


CONVS: Final = (
    Conv("features.0", 64, 11, 3, 4, 2, False),
    Conv("features.3", 192, 5, 64, 1, 2, True),
    Conv("features.6", 384, 3, 192, 1, 1, True),
    Conv("features.8", 256, 3, 384, 1, 1, False),
    Conv("features.10", 256, 3, 256, 1, 1, False),
)
UNUSED: Final = tuple(
    f"classifier.{index}.{kind}" for index in (1, 4, 6) for kind in ("weight", "bias")
)
"""Keys of torchvision's file that no distance depends on."""

T = TypeVar("T")


class Lpips(NamedTuple):
    """The tensors of LPIPS, by layer."""

    kernels: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]
    weights: tuple[Tensor, ...]  # each `[1, channels, 1, 1]`, not negative

    def to(self, device: torch.device) -> Lpips:
        return Lpips(*(tuple(tensor.to(device) for tensor in tensors) for tensors in self))


def load_lpips(alexnet: str | None, linear: str | None, reward: str) -> Lpips:
    """The tensors of both official files.

    Hashes are verified before the files are read, and no code in them is run.

    Args:
        alexnet: path of a local copy of torchvision's alexnet-owt-7be5be79.pth; None to fetch it.
        linear: path of a local copy of the original's weights/v0.1/alex.pth; None to fetch it.
        reward: id of the reward, for messages.

    Raises:
        MissingResourceError: A file is neither here nor downloadable, or is another file.
    """
    file = _file(alexnet, ALEXNET, f"reward {reward!r} needs AlexNet")
    convolutions = _read(file, _convolutions)
    file = _file(linear, LPIPS_LINEAR, f"reward {reward!r} needs the layer weights of LPIPS v0.1")
    return Lpips(*convolutions, _read(file, _linear))


def _file(path: str | None, weight: WeightFile, needs: str) -> Path:
    what = f"{needs} ({weight.megabytes:g} MB, {weight.licence}), which"
    sha256 = weight.sha256 or ""
    if path:
        return weights.verified(Path(path), sha256, what)
    return weights.fetch_url(weight.source, sha256, what)


def _read(file: Path, take: Callable[[Mapping[str, Tensor]], T]) -> T:
    with load_errors_as(f"{file} is not the expected file of LPIPS"):
        return take(torch.load(file, map_location="cpu", weights_only=True))


def _convolutions(state: Mapping[str, Tensor]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    kernels: dict[str, tuple[int, ...]] = {
        f"{conv.key}.weight": (conv.channels, conv.inputs, conv.kernel, conv.kernel)
        for conv in CONVS
    }
    biases: dict[str, tuple[int, ...]] = {f"{conv.key}.bias": (conv.channels,) for conv in CONVS}
    _check({name: tensor for name, tensor in state.items() if name not in UNUSED}, kernels | biases)
    return tuple(state[name].float() for name in kernels), tuple(
        state[name].float() for name in biases
    )


def _linear(state: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    shapes = {
        f"lin{index}.model.1.weight": (1, conv.channels, 1, 1) for index, conv in enumerate(CONVS)
    }
    _check(state, shapes)
    if any(bool((tensor < 0).any()) for tensor in state.values()):
        raise ValueError("a weight of a layer is negative, and those of LPIPS are not")
    return tuple(state[name].float() for name in shapes)


def _check(state: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raises ValueError unless `state` has exactly these tensors."""
    found = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if wrong := sorted(name for name in {*found, *shapes} if found.get(name) != shapes.get(name)):
        raise ValueError(
            f"{len(wrong)} tensors are missing, unknown or of another shape, such as {wrong[0]}"
        )


def lpips_inputs(image: Image.Image, side: int) -> Tensor:
    """LPIPS's input of an RGB image: float32 `[3, side, side]` in [-1, 1].

    An image of another size is resized by PIL bicubic; its aspect ratio is not kept.
    """
    square = (
        image
        if image.size == (side, side)
        else image.resize((side, side), Image.Resampling.BICUBIC)
    )
    return torch.from_numpy(np.asarray(square, dtype=np.float32) / 127.5 - 1).permute(2, 0, 1)


def lpips_features(model: Lpips, images: Tensor) -> Tensor:
    """The vectors whose squared distance is LPIPS.

    Args:
        model: tensors on the device of the images.
        images: float32 `[batch, 3, height, width]` in [-1, 1], at least 32 high and wide.

    Returns:
        float32 `[batch, width]`: 640,128 numbers for an image of 256×256.
    """
    x = (images - images.new_tensor(SHIFT).view(3, 1, 1)) / images.new_tensor(SCALE).view(3, 1, 1)
    features = []
    for conv, kernel, bias, weight in zip(CONVS, *model, strict=True):
        x = max_pool2d(x, 3, 2) if conv.pool else x
        x = conv2d(x, kernel, bias, conv.stride, conv.padding).relu()
        unit = x / (x.square().sum(1, keepdim=True).sqrt() + EPSILON)
        features.append((unit * (weight / x[0, 0].numel()).sqrt()).flatten(1))
    return torch.cat(features, 1)


def lpips_distances(features: Tensor) -> Tensor:
    """LPIPS of every two images: `[n, width]` → float64 `[n, n]`.

    Computed from the differences themselves, so that close images are exact.
    """
    distances = torch.zeros(len(features), len(features), dtype=torch.float64)
    for row, vector in enumerate(features[:-1]):
        distances[row, row + 1 :] = (
            for_float64((features[row + 1 :] - vector).square()).sum(1, dtype=torch.float64).cpu()
        )
    return distances + distances.T
