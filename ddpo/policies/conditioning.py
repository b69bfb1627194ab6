"""Text conditioning of a denoiser: one tensor, or several tensors and lists by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["Conditioning", "concatenated", "expanded", "size_in_bytes"]


@dataclass(frozen=True, slots=True)
class Conditioning:
    """Named tensors of a batch of texts, such as hidden states and a pooled embedding.

    Policies whose denoiser takes one tensor may use that tensor in its place.

    Args:
        parts: Tensors `[batch, …]` by name, or tuples of one tensor per text, whose shapes may
            differ.

    Raises:
        ValueError: There is no part, or the parts have different batch sizes.
    """

    parts: Mapping[str, Any]

    def __post_init__(self) -> None:
        if len({len(part) for part in self.parts.values()}) != 1:
            sizes = {name: len(part) for name, part in self.parts.items()}
            raise ValueError(f"the parts of a conditioning need one batch size, got {sizes}")

    def __len__(self) -> int:
        return len(next(iter(self.parts.values())))

    def __getitem__(self, index: Any) -> Conditioning:
        """The items of a slice, or of an index tensor `[items]`."""
        return Conditioning({name: _picked(part, index) for name, part in self.parts.items()})


def _picked(part: Any, index: Any) -> Any:
    """The items of a part; those of a tuple are picked on the host."""
    if isinstance(part, Tensor) or isinstance(index, slice):
        return part[index]
    return tuple(part[place] for place in index.tolist())


def concatenated(batches: Sequence[Any]) -> Any:
    """Batches of conditioning of one kind, one after the other.

    Args:
        batches: Tensors, or `Conditioning` with the same names.

    Raises:
        ValueError: The names differ.
    """
    first = batches[0]
    if isinstance(first, tuple):
        return tuple(item for batch in batches for item in batch)
    if not isinstance(first, Conditioning):
        return torch.cat(list(batches))
    if any(batch.parts.keys() != first.parts.keys() for batch in batches):
        raise ValueError("batches of conditioning with different parts cannot be one batch")
    return Conditioning(
        {name: concatenated([batch.parts[name] for batch in batches]) for name in first.parts}
    )


def expanded(one: Any, batch: int) -> Any:
    """The conditioning of one text for a whole batch, without a copy.

    Args:
        one: Tensor `[1, …]`, or `Conditioning` of one text.
        batch: Number of items.
    """
    if isinstance(one, tuple):
        return one * batch
    if not isinstance(one, Conditioning):
        return one.expand(batch, *one.shape[1:])
    return Conditioning({name: expanded(part, batch) for name, part in one.parts.items()})


def size_in_bytes(conditioning: Any) -> int:
    """The memory that a tensor or a `Conditioning` takes."""
    if isinstance(conditioning, Conditioning):
        return sum(map(size_in_bytes, conditioning.parts.values()))
    if isinstance(conditioning, tuple):
        return sum(map(size_in_bytes, conditioning))
    return int(conditioning.nbytes)
