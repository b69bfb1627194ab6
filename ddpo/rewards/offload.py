"""Networks of rewards that share an accelerator with a training run, and their way off it.

A reward puts its networks on a device with `place`, so that `offloaded` can move them to the CPU
while an update runs. `ddpo.rewards.scoring.call` brings them back before any call of a reward.
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
_away: list[tuple[weakref.ref[nn.Module], torch.device]] = []
_turn = threading.Lock()


def place(network: N, device: torch.device | str, dtype: torch.dtype | None = None) -> N:
    """Moves a reward's network to a device, and lets a run with `--low-memory` move it off again.

    Args:
        network: The network; rewards that keep only submodules of it are served too.
        device: Torch device on which the reward calls it.
        dtype: New type of its weights; None leaves them as they are.
    """
    network = network.to(device=torch.device(device), dtype=dtype)
    _placed.update(network.modules())
    return network


@contextmanager
def offloaded(device: torch.device) -> Iterator[None]:
    """Within, placed networks of that device lie on the CPU; on the CPU itself nothing moves."""
    if device.type != "cpu":
        _offload(_exact(device))
    try:
        yield
    finally:
        restore()


def restore() -> None:
    """Moves all networks that are away back to their devices, bit for bit what they were."""
    if not _away:  # the common case takes no lock
        return
    with _turn:
        while _away:
            network, device = _away[-1]
            if (found := network()) is not None:
                found.to(device)
            _away.pop()


def unplaced_rewards(reward: Reward, device: torch.device) -> list[str]:
    """Ids of rewards with networks on the device that `place` does not know.

    Found are networks that are attributes of a reward, or that its function closes over.

    Args:
        reward: The reward; the parts of a combination are looked at one by one.
        device: Accelerator on which the run trains.
    """
    scorers = getattr(reward, "scorers", None)
    if scorers is not None:
        return [name for one in scorers.values() for name in unplaced_rewards(one.reward, device)]
    exact = _exact(device)
    held = [each for each in _networks(reward) if each not in _placed and _lies_on(each, exact)]
    return [reward.card.id] if held else []


def _offload(device: torch.device) -> None:
    with _turn:
        for network in [each for each in _placed if _lies_on(each, device)]:
            _away.append((weakref.ref(network), device))
            network.to("cpu")


def _exact(device: torch.device) -> torch.device:
    """The device with its number, as tensors name it."""
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
