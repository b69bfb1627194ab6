"""Offloading of rewards' networks to the CPU while a training run updates the model.

A reward puts its networks on a device with `place`, and `offloaded` moves them to the CPU.
`ddpo.rewards.scoring.call` restores them before any call of a reward.
"""

from __future__ import annotations

import inspect
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import nn

from ddpo.rewards.base import Reward

__all__ = ["offloaded", "place", "restore", "unplaced_rewards"]

N = TypeVar("N", bound=nn.Module)

_placed: weakref.WeakSet[nn.Module] = weakref.WeakSet()
_offloaded: list[tuple[weakref.ref[nn.Module], torch.device]] = []
_lock = threading.Lock()


def place(network: N, device: torch.device | str, dtype: torch.dtype | None = None) -> N:
    """Moves a reward's network to a device, and registers it for offloading (`--low-memory`).

    Args:
        network: network of the reward, which may keep only submodules of it.
        device: torch device on which the reward calls the network.
        dtype: new type of the weights; None leaves them as they are.
    """
    network = network.to(device=torch.device(device), dtype=dtype)
    _placed.update(network.modules())
    return network


@contextmanager
def offloaded(device: torch.device) -> Iterator[None]:
    """A context in which the placed networks of an accelerator lie on the CPU."""
    if device.type != "cpu":
        _offload(_exact(device))
    try:
        yield
    finally:
        restore()


def restore() -> None:
    """Moves all offloaded networks back to their devices, bit for bit the same."""
    if not _offloaded:  # the common case takes no lock
        return
    with _lock:
        while _offloaded:
            network, device = _offloaded[-1]
            if (found := network()) is not None:
                found.to(device)
            _offloaded.pop()


def unplaced_rewards(reward: Reward, device: torch.device) -> list[str]:
    """Ids of rewards with networks on the device that were not registered by `place`.

    Networks are found among the attributes of a reward and the variables of its function.

    Args:
        reward: the reward; the rewards of a combination are examined one by one.
        device: accelerator on which the run trains.
    """
    scorers = getattr(reward, "scorers", None)
    if scorers is not None:
        return [name for one in scorers.values() for name in unplaced_rewards(one.reward, device)]
    exact = _exact(device)
    unplaced = [each for each in _networks(reward) if each not in _placed]
    return [reward.card.id] if any(_lies_on(each, exact) for each in unplaced) else []


def _offload(device: torch.device) -> None:
    with _lock:
        for network in [each for each in _placed if _lies_on(each, device)]:
            _offloaded.append((weakref.ref(network), device))
            network.to("cpu")


def _exact(device: torch.device) -> torch.device:
    """The device with its index, as tensors report it."""
    return torch.empty(0, device=device).device


def _lies_on(network: nn.Module, device: torch.device) -> bool:
    return any(tensor.device == device for tensor in (*network.parameters(), *network.buffers()))


def _networks(reward: Reward) -> Iterator[nn.Module]:
    for value in getattr(reward, "__dict__", {}).values():
        if isinstance(value, nn.Module):
            yield value
        elif inspect.isfunction(value):
            found = inspect.getclosurevars(value)
            names = (*found.nonlocals.values(), *found.globals.values())
            yield from (each for each in names if isinstance(each, nn.Module))
