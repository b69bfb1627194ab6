"""LAION's aesthetic heads: affine maps of a normalised CLIP image embedding, and their files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from ddpo.devices import for_float64, in_float64
from ddpo.errors import MissingResourceError, one_line
from ddpo.rewards.models.load_errors import LOAD_ERRORS, short_cause

__all__ = ["collapse_head", "head_scores", "read_head"]

LAYERS: Final = (0, 2, 4, 6, 7)
"""Indices of the linear layers between dropouts, without activations.

Source: christophschuhmann/improved-aesthetic-predictor, simple_inference.py.
"""


def collapse_head(state: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The head's linear layers, which have no activation between them, as one map w·e + b.

    Returns:
        w float32 `[width]` and b float32 `[]`, multiplied out in float64.
    """
    first, *others = sorted({int(name.split(".")[1]) for name in state})
    weight = state[f"layers.{first}.weight"].double()
    bias = state[f"layers.{first}.bias"].double()
    for index in others:
        layer = state[f"layers.{index}.weight"].double()
        weight = layer @ weight
        bias = layer @ bias + state[f"layers.{index}.bias"].double()
    return weight[0].float(), bias[0].float()


def head_scores(embeddings: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Scores w · e/|e| + b: embeddings `[batch, width]` of any length → float32 `[batch]`.

    Summed in float64, so that the order of summation does not show.
    """
    unit = torch.nn.functional.normalize(in_float64(embeddings), dim=-1)
    return (torch.matmul(unit, in_float64(weight)) + for_float64(bias)).float()


def read_head(file: Path, reward: str) -> tuple[Tensor, Tensor]:
    """The affine head in a user's file, safetensors or torch; no code in the file is run.

    Args:
        file: path of one linear layer (`weight`, `bias`) or of the predictor v2 (`layers.N.…`).
        reward: id of the reward, for messages.

    Returns:
        w float32 `[width]` and b float32 `[]`.

    Raises:
        MissingResourceError: The file is not there, or holds no such head.
    """
    if not file.is_file():
        raise MissingResourceError(f"reward {reward!r}: there is no head at {file}")
    try:
        weight, bias = _head(_state(file))
        if not (weight.isfinite().all() and bias.isfinite()):
            raise ValueError("some of its numbers are not finite")
    except LOAD_ERRORS as error:
        cause = short_cause(error)
        raise MissingResourceError(
            f"reward {reward!r}: {file} is no LAION-style head ({cause}): it takes one linear "
            f"layer, or the predictor v2 without activations, layers {', '.join(map(str, LAYERS))}",
        ) from error
    return weight, bias


def _head(state: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The affine map of either form of head; ValueError for any other file."""
    names = sorted(state)
    if names == ["bias", "weight"]:
        weight = state["weight"].float()
        bias = state["bias"].float()
        if weight.dim() != 2 or len(weight) != 1 or bias.shape != (1,):
            raise ValueError(f"its layer has the shape {tuple(weight.shape)}, not (1, width)")
        return weight[0], bias[0]
    if names == sorted(f"layers.{i}.{kind}" for i in LAYERS for kind in ("bias", "weight")):
        return collapse_head(state)
    raise ValueError(f"it holds {', '.join(names[:3]) or 'nothing'}{' …' * (len(names) > 3)}")


def _state(file: Path) -> dict[str, Tensor]:
    if file.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            loaded: dict[str, Tensor] = load_file(file)
        except SafetensorError as error:
            raise ValueError(one_line(error)) from error
        return loaded
    state = torch.load(file, map_location="cpu", weights_only=True)
    named = isinstance(state, Mapping)
    if not named or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"it holds a {type(state).__name__}, not tensors by name")
    return dict(state)
