"""Tensors on disk: safetensors only, written to a temporary name and renamed, optimizer state included.

No pickle is read or written. `torch.optim.Optimizer.state_dict` is flattened to `optimizer.<index>.<name>` tensors.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ddpo.errors import CheckpointError
from ddpo.io.atomic import atomic_path

__all__ = ["load_tensors", "optimizer_tensors", "restore_optimizer", "save_tensors"]


def save_tensors(
    path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Writes `tensors` to `path` atomically: a reader sees the old file or the new one, never a part."""
    with atomic_path(path) as temporary:
        save_file(
            {name: tensor.detach().contiguous() for name, tensor in tensors.items()},
            str(temporary),
            metadata=dict(metadata or {}),
        )


def load_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Reads what `save_tensors` wrote: the tensors and the metadata.

    Raises:
        CheckpointError: the file is missing, cut short or not safetensors.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(
                file.metadata() or {}
            )
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors: {error}") from error


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The per-parameter state of `optimizer` as `optimizer.<index>.<name>` tensors (a scalar becomes a float64 tensor)."""
    return {
        f"optimizer.{index}.{name}": value
        if isinstance(value, torch.Tensor)
        else torch.tensor(value, dtype=torch.float64)
        for index, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer,
    tensors: Mapping[str, torch.Tensor],
    place: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = lambda parameter, value: value,
) -> None:
    """Puts back what `optimizer_tensors` took; hyper-parameters stay those of `optimizer`.

    Moments take the memory layout of their parameter, on which fused steps insist. Scalars that were no tensors are integers again.

    Args:
        optimizer: the optimizer, over the parameters that it had.
        tensors: `optimizer.<index>.<name>`; others are left alone.
        place: the tensor that the optimizer keeps, from a parameter and a tensor of its state.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    states: dict[int, dict[str, torch.Tensor | int]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".", 2)
            parameter = parameters[int(index)]
            placed = place(parameter, value)
            if placed is value and value.shape == parameter.shape:
                placed = torch.empty_like(parameter, dtype=value.dtype, device=value.device).copy_(
                    value
                )
            plain = (
                placed.dtype == torch.float64 and placed.ndim == 0
            )  # as of a step that was no tensor
            states.setdefault(int(index), {})[name] = int(placed) if plain else placed
    optimizer.load_state_dict(
        {"state": states, "param_groups": optimizer.state_dict()["param_groups"]}
    )
