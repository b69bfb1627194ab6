"""What the machine refuses a run: room on the disk, memory. Each becomes one line that says what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError

from ddpo.errors import DdpoError, MemoryExhausted, StorageFailure, one_line
from ddpo.io import atomic

__all__ = ["enough_memory", "is_of_memory", "storing"]

REFUSALS: Final = (
    "out of memory",
    "can't allocate memory",
    "bad_alloc",
    "could not create a primitive",
)
"""Words of a `RuntimeError` about memory: of a GPU's libraries, PyTorch's allocator on the CPU, C++, oneDNN."""


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """Around what writes `path`, or the files in it.

    Raises:
        StorageFailure: it cannot be written; names `path` and the reason.
    """
    try:
        with atomic.storing(path):
            yield
    except SafetensorError as error:  # how safetensors puts an error of the disk
        reason = one_line(error).rpartition("I/O error: ")[2].partition(" (os error ")[0]
        raise StorageFailure(f"{path} cannot be written: {reason}") from error


@contextmanager
def enough_memory(batch: int | None) -> Iterator[None]:
    """Around what may need more memory than there is.

    Args:
        batch: `sample.batch`, which sampling and training depend on; None while the model is loaded, which does not.

    Raises:
        MemoryExhausted: it does.
    """
    try:
        yield
    except DdpoError:
        raise
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
        if not is_of_memory(error):
            raise
        raise MemoryExhausted(
            f"there is not enough memory ({one_line(error)[:300]}); {_advice(batch)}"
        ) from error


def is_of_memory(error: BaseException) -> bool:
    """True if an error says that memory did not suffice."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(
        words in str(error).lower() for words in REFUSALS
    )


def _advice(batch: int | None) -> str:
    if batch is None:
        return "the model itself does not fit"
    if batch == 1:
        return "sample.batch is 1 already: a larger machine is needed, or a run with LoRA in the place of full finetuning"
    return (
        f"a smaller sample.batch than {batch} needs less, such as --set sample.batch={batch // 2}"
    )
