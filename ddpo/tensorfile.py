"""Tensors on disk: safetensors only, written to a temporary name and renamed, optimizer state included.

No pickle is read or written. `torch.optim.Optimizer.state_dict` is flattened to `optimizer.<index>.<name>` tensors.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ddpo.errors import CheckpointError
from ddpo.files import atomic_path

__all__ = ["load_tensors", "optimizer_tensors", "restore_optimizer", "save_tensors"]


def save_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Writes `tensors` to `path` atomically: a reader sees the old file or the new one, never a part."""
    with atomic_path(path) as temporary:
        save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, str(temporary), metadata=dict(metadata or {}))


def load_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Reads what `save_tensors` wrote: the tensors and the metadata.

    Raises:
        CheckpointError: the file is missing, cut short or not safetensors.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors: {error}") from error


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The per-parameter state of `optimizer` as `optimizer.<index>.<name>` tensors (a scalar becomes a float64 tensor)."""
    return {
        f"optimizer.{index}.{name}": value if isinstance(value, torch.Tensor) else torch.tensor(value, dtype=torch.float64)
        for index, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]) -> None:
    """Puts back what `optimizer_tensors` took; hyper-parameters stay those of `optimizer`.

    Moments take the memory layout of their parameter, on which fused steps insist. Scalars that were no tensors are integers again.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    states: dict[int, dict[str, torch.Tensor | int]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".", 2)
            alike = value.shape == parameters[int(index)].shape
            laid_out = torch.empty_like(parameters[int(index)], dtype=value.dtype, device=value.device).copy_(value) if alike else value
            plain = laid_out.dtype == torch.float64 and laid_out.ndim == 0  # as of a step that was no tensor
            states.setdefault(int(index), {})[name] = int(laid_out) if plain else laid_out
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
