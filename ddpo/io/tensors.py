"""Tensors on disk, optimizer state included, as atomically written safetensors.

No pickle is read or written. `torch.optim.Optimizer.state_dict` is flattened to tensors named
`optimizer.<index>.<name>`.
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
    """Writes `tensors` atomically: a reader sees the old file or the new one, never a part."""
    with atomic_path(path) as temporary:
        save_file(
            {name: tensor.detach().contiguous() for name, tensor in tensors.items()},
            str(temporary),
            metadata=dict(metadata or {}),
        )


def load_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tensors and the metadata of a file written by `save_tensors`.

    Raises:
        CheckpointError: The file is missing, truncated or not safetensors.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            names = file.keys()  # `safe_open` does not iterate
            return {name: file.get_tensor(name) for name in names}, dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors: {error}") from error


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The per-parameter state of an optimizer as tensors named `optimizer.<index>.<name>`.

    A scalar becomes a float64 tensor.
    """
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
    """Restores the state from `optimizer_tensors`; hyper-parameters stay those of `optimizer`.

    Moments take the memory layout of their parameter, as fused steps require. Scalars become
    integers again.

    Args:
        optimizer: Optimizer over the same parameters as before.
        tensors: Tensors named `optimizer.<index>.<name>`; other names are ignored.
        place: Function of a parameter and a tensor of its state that returns the tensor to keep.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    states: dict[int, dict[str, torch.Tensor | int]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".", 2)
            parameter = parameters[int(index)]
            placed = place(parameter, value)
            if placed is value and value.shape == parameter.shape:
                layout = torch.empty_like(parameter, dtype=value.dtype, device=value.device)
                placed = layout.copy_(value)
            plain = placed.dtype == torch.float64 and placed.ndim == 0  # a step that was no tensor
            states.setdefault(int(index), {})[name] = int(placed) if plain else placed
    optimizer.load_state_dict(
        {"state": states, "param_groups": optimizer.state_dict()["param_groups"]}
    )
