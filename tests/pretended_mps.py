"""A stand-in for Apple's GPU, whose tensors are marked CPU tensors and never float64.

It sees every call of torch's Python interface. What comes from a marked tensor is marked; `cpu()`
gives an unmarked one. Mixing both kinds is an error unless one is a single number.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

MPS = torch.device("mps", 0)
NO_FLOAT64 = (
    "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64. "
    "Please use float32 instead."
)
GETTERS = (
    "is_cpu",
    "dtype",
    "shape",
    "requires_grad",
    "is_leaf",
    "ndim",
    "is_sparse",
    "layout",
    "grad_fn",
    "names",
    "is_mps",
    "is_cuda",
)
TO_HOST = (
    "cpu",
    "item",
    "tolist",
    "__float__",
    "__bool__",
    "__int__",
    "__index__",
    "__repr__",
    "__format__",
)


def on_mps(value: Any) -> bool:
    """True for a tensor of the pretended device."""
    return isinstance(value, Tensor) and bool(getattr(value, "pretended_mps", False))


def mark(value: Any) -> Any:
    """The tensor, moved to the pretended device."""
    if isinstance(value, Tensor):
        if value.dtype == torch.float64:
            raise TypeError(NO_FLOAT64)
        value.pretended_mps = True  # type: ignore[attr-defined]
    return value


def is_mps(value: Any) -> bool:
    """True for the pretended device, or a name of it."""
    return (isinstance(value, torch.device) and value.type == "mps") or (
        isinstance(value, str) and value.split(":")[0] == "mps"
    )


class PretendedMps(TorchFunctionMode):
    """Within it, "mps" is a device. `calls` counts the calls that had a tensor on it."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        flat = tree_leaves((args, kwargs))
        marked = [value for value in flat if on_mps(value)]
        self.calls += bool(marked)
        if name == "__get__":
            return self._get(func, args, marked)
        if func is torch.device or name == "_parse_to":  # only read the device
            return func(*args, **kwargs)
        if name == "__set__":
            return self._set(func, args)
        if name == "numpy" and marked:
            raise TypeError(
                "can't convert mps:0 device type tensor to numpy. "
                "Use Tensor.cpu() to copy the tensor to host memory first."
            )
        target = next(
            (value for value in flat if isinstance(value, torch.device) or is_mps(value)), None
        )
        plain_args = args
        plain_kwargs = kwargs
        if is_mps(target):
            plain_args, plain_kwargs = tree_map(
                lambda value: torch.device("cpu") if is_mps(value) else value, (args, kwargs)
            )
        if name in TO_HOST:
            found = func(*plain_args, **plain_kwargs)
            return unmarked(found) if marked else found
        if name == "to" and target is not None:
            found = func(*plain_args, **plain_kwargs)
            return mark(alias(found)) if is_mps(target) else unmarked(found)
        if target is None and marked:
            self._check_alike(name, flat)
        found = func(*plain_args, **plain_kwargs)
        moved = is_mps(target) or (bool(marked) and target is None)
        return tree_map(mark, found) if moved else found

    def _get(self, func: Any, args: Any, marked: list[Tensor]) -> Any:
        found = func(*args)
        if not marked:
            return found
        if isinstance(found, torch.device):
            return MPS
        return tree_map(mark, found) if isinstance(found, Tensor) else found

    def _set(self, func: Any, args: Any) -> Any:
        func(*args)
        if len(args) > 1 and on_mps(args[1]):
            mark(args[0])
        elif getattr(func, "__self__", None) is Tensor.data:  # `tensor.data = another` moves it
            args[0].pretended_mps = False

    def _check_alike(self, name: str, flat: list[Any]) -> None:
        foreign = [
            value
            for value in flat
            if isinstance(value, Tensor) and not on_mps(value) and value.ndim
        ]
        if (
            foreign
            and not name.startswith("_")
            and name not in ("__getitem__", "__setitem__", "index_put_", "copy_")
        ):
            raise RuntimeError(
                f"Expected all tensors to be on the same device, but {name} found mps:0 and cpu"
            )


def alias(value: Any) -> Any:
    """Another tensor over the same numbers, so that the mark of one is not that of the other."""
    return value.view_as(value)


def unmarked(value: Any) -> Any:
    """The tensor as it comes back from the pretended device."""
    if not on_mps(value):
        return value
    with torch._C.DisableTorchFunction():
        return value.view_as(value)
