"""Tensors on disk, optimizer state included, as atomically written safetensors with a checksum.

The checksum is in the file's metadata, over names, types, shapes, bytes and the other metadata.
Files without one, of older versions and of other programs, are read too. No pickle is read or
written. `torch.optim.Optimizer.state_dict` is flattened to tensors named
`optimizer.<index>.<name>`.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ddpo.errors import CheckpointError, DdpoError, one_line
from ddpo.io.atomic import atomic_path

__all__ = [
    "check_finite",
    "load_tensors",
    "opened_tensors",
    "optimizer_tensors",
    "restore_optimizer",
    "save_tensors",
    "tensor_file_digest",
    "tensor_files_digest",
    "tensors_digest",
]

UNREADABLE: Final = (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError)
"""Errors of safetensors and torch for missing and damaged files, and types that torch lacks."""
CHECKSUM: Final = "ddpo_sha256"
"""Key of the metadata."""


def save_tensors(
    path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Writes `tensors` and their checksum atomically: a reader never sees a part of the file."""
    facts = dict(metadata or {})
    saved = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    checksum = {CHECKSUM: tensors_digest(saved.items(), facts)}
    with atomic_path(path) as temporary:
        save_file(saved, str(temporary), metadata=facts | checksum)


def load_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tensors and the metadata of a file written by `save_tensors`.

    Raises:
        CheckpointError: The file is missing, truncated or not safetensors, or its checksum differs.
    """
    with opened_tensors(path) as file:
        names = file.keys()  # `safe_open` does not iterate
        tensors = {name: file.get_tensor(name) for name in names}
        metadata = dict(file.metadata() or {})
    written = metadata.pop(CHECKSUM, None)
    if written is not None and written != tensors_digest(tensors.items(), metadata):
        raise CheckpointError(
            f"{path} is damaged: its content has changed since it was written, by its SHA-256; "
            "put a copy in its place"
        )
    return tensors, metadata


@contextmanager
def opened_tensors(path: Path) -> Iterator[Any]:
    """A safetensors file, whose header fits its length, open for reading in the block.

    Raises:
        CheckpointError: The file is missing, truncated or not safetensors.
    """
    try:
        if path.exists() and not path.is_file():  # a named pipe would wait for a writer
            raise OSError("not a regular file")
        with safe_open(str(path), framework="pt") as file:
            yield file
    except DdpoError:
        raise
    except UNREADABLE as error:
        raise CheckpointError(f"{path} cannot be read as safetensors: {one_line(error)}") from error


def check_finite(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Compares weights with NaN and infinity, which no training writes.

    Args:
        tensors: Weights by name.
        path: Their file, for the message.

    Raises:
        CheckpointError: A weight is one of them.
    """
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            continue
        plain = tensor if tensor.element_size() > 1 else tensor.float()
        if not bool(torch.isfinite(plain).all()):
            raise CheckpointError(f"{path} is damaged: {name} has weights that are NaN or infinite")


def tensors_digest(
    tensors: Iterable[tuple[str, torch.Tensor]], metadata: Mapping[str, str] | None = None
) -> str:
    """SHA-256 of tensors, in 64 hexadecimal digits, whatever their order and place in a file.

    Args:
        tensors: Names and tensors on any device.
        metadata: Text that belongs to them.
    """
    parts = []
    for name, tensor in tensors:
        head = f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode()
        data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
        parts.append((name, hashlib.sha256(head + hashlib.sha256(data).digest()).digest()))
    digest = hashlib.sha256()
    for _, part in sorted(parts):
        digest.update(part)
    for key, value in sorted((metadata or {}).items()):
        digest.update(f"{len(key)} {len(value)} {key} {value}\n".encode())
    return digest.hexdigest()


def tensor_file_digest(path: Path) -> str:
    """The `tensors_digest` of a safetensors file and its metadata, read one tensor at a time.

    Equal tensors have equal digests. Their files may differ, since safetensors writes its header in
    no fixed order.

    Raises:
        CheckpointError: The file is missing, truncated or not safetensors.
    """
    with opened_tensors(path) as file:
        names = file.keys()  # `safe_open` does not iterate
        metadata = dict(file.metadata() or {})
        metadata.pop(CHECKSUM, None)
        return tensors_digest(((name, file.get_tensor(name)) for name in names), metadata)


def tensor_files_digest(files: Sequence[Path], metadata: Mapping[str, str]) -> str:
    """The `tensors_digest` of all tensors in some safetensors files, read one at a time.

    It does not depend on the order of a header, on other metadata, or on how many files there are.

    Args:
        files: Paths of the files.
        metadata: Text that belongs to the tensors, in place of the files' own metadata.

    Raises:
        CheckpointError: A file is missing, truncated or not safetensors.
    """

    def tensors() -> Iterator[tuple[str, torch.Tensor]]:
        for path in files:
            with opened_tensors(path) as file:
                names = file.keys()  # `safe_open` does not iterate
                yield from ((name, file.get_tensor(name)) for name in names)

    return tensors_digest(tensors(), metadata)


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
