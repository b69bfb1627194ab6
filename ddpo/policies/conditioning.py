"""Text conditioning of a denoiser: one tensor, or several by name."""

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
        parts: Tensors `[batch, …]` by name.

    Raises:
        ValueError: There is no part, or the parts have different batch sizes.
    """

    parts: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        if len({len(part) for part in self.parts.values()}) != 1:
            sizes = {name: list(part.shape) for name, part in self.parts.items()}
            raise ValueError(f"the parts of a conditioning need one batch size, got {sizes}")

    def __len__(self) -> int:
        return len(next(iter(self.parts.values())))

    def __getitem__(self, index: Any) -> Conditioning:
        """The items of a slice, or of an index tensor `[items]`."""
        return Conditioning({name: part[index] for name, part in self.parts.items()})


def concatenated(batches: Sequence[Any]) -> Any:
    """Batches of conditioning of one kind, one after the other.

    Args:
        batches: Tensors, or `Conditioning` with the same names.

    Raises:
        ValueError: The names differ.
    """
    first = batches[0]
    if not isinstance(first, Conditioning):
        return torch.cat(list(batches))
    if any(batch.parts.keys() != first.parts.keys() for batch in batches):
        raise ValueError("batches of conditioning with different parts cannot be one batch")
    return Conditioning(
        {name: torch.cat([batch.parts[name] for batch in batches]) for name in first.parts}
    )


def expanded(one: Any, batch: int) -> Any:
    """The conditioning of one text for a whole batch, without a copy.

    Args:
        one: Tensor `[1, …]`, or `Conditioning` of one text.
        batch: Number of items.
    """
    if not isinstance(one, Conditioning):
        return one.expand(batch, *one.shape[1:])
    return Conditioning({name: expanded(part, batch) for name, part in one.parts.items()})


def size_in_bytes(conditioning: Any) -> int:
    """The memory that a tensor or a `Conditioning` takes."""
    if not isinstance(conditioning, Conditioning):
        return int(conditioning.nbytes)
    return sum(part.nbytes for part in conditioning.parts.values())
