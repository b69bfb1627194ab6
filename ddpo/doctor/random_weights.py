"""Models of the published sizes with random weights, initialised on the device that will run them.

They need no file and no network. They show speed, memory and numerical agreement, never image
quality.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

__all__ = ["fill_with_random_weights", "random_module", "write_embedded_tokenizer"]

STD: Final = 0.02  # of the weight matrices; GPT-2's and CLIP's order of magnitude
CLIP_LOGIT_SCALE: Final = 4.6
"""ln 100, the value at which CLIP's training clips it (arXiv 2103.00020, section 2.5)."""


def random_module(
    build: Callable[[], Any],
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> Any:
    """A module with random weights, which are made on `device` and nowhere else.

    Args:
        build: Constructor of the module; called once, with the meta device as torch's default.
        device: Torch device of the weights.
        dtype: Type of the floating-point weights; None: that of the module.
    """
    with torch.device("meta"):
        module = build()
    if dtype is not None:
        nn.Module.to(module, dtype)  # not diffusers' own `to`, which warns for no reason
    return fill_with_random_weights(module, device)


@torch.no_grad()
def fill_with_random_weights(module: nn.Module, device: torch.device | str = "cpu") -> nn.Module:
    """The module of the meta device on `device`: matrices from N(0, 0.02²), norms 1, biases 0.

    The values depend on the device's generator with seed 0 alone, so that a second call gives the
    same model.
    """
    generator = torch.Generator(device).manual_seed(0)
    module = module.to_empty(device=device).eval().requires_grad_(False)
    for name, parameter in module.named_parameters():
        if name == "logit_scale":
            parameter.fill_(CLIP_LOGIT_SCALE)
        elif parameter.ndim > 1:
            parameter.normal_(0, STD, generator=generator)
        else:
            parameter.fill_(float(name.endswith("weight")))
    for part in module.modules():  # buffers that are counts rather than weights
        if (positions := getattr(part, "position_ids", None)) is not None:
            positions.copy_(torch.arange(positions.shape[1], device=positions.device)[None])
    return module


def write_embedded_tokenizer(folder: Path, tokens: int) -> int:
    """Writes the embedded model's CLIP tokenizer, and returns the size of its vocabulary.

    Args:
        folder: Folder to write.
        tokens: Length of a tokenised prompt.
    """
    from transformers import CLIPTokenizer

    with as_file(files("ddpo.policies.emoji") / "weights" / "tokenizer") as embedded:
        shutil.copytree(embedded, folder, dirs_exist_ok=True)
    tokenizer = CLIPTokenizer.from_pretrained(folder, model_max_length=tokens)
    tokenizer.save_pretrained(folder)
    return len(tokenizer)
