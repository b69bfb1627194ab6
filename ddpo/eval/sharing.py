"""The processes of one evaluation: one, or several that `accelerate launch` started, each with its own share of the pictures.

What a process draws or scores depends on no other, and each writes journals of its own; so all that they need of each other is to wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final, TypeVar

from ddpo.devices import resolve_device
from ddpo.errors import ConfigError
from ddpo.launch import load_whole_models, process_count

__all__ = ["ALONE", "World", "join"]

PATIENCE: Final = timedelta(hours=12)
"""How long a process waits for the others. One that dies does not keep them waiting: the launcher ends all."""

T = TypeVar("T")


class World:
    """What a process knows of the others. `join` makes it.

    Args:
        state: accelerate's; None if the process is alone.
        device: torch device of this process.
    """

    def __init__(self, state: Any | None, device: str) -> None:
        self._state, self.device = state, device
        self.rank: int = state.process_index if state else 0
        self.count: int = state.num_processes if state else 1

    @property
    def main(self) -> bool:
        """Whether this process makes the report and speaks for all."""
        return self.rank == 0

    def share(self, items: Sequence[T], block: int) -> list[list[T]]:
        """Which blocks of `block` items are this process's: every `count`-th. All processes must ask with the same items."""
        return [
            list(items[start : start + block])
            for start in range(self.rank * block, len(items), self.count * block)
        ]

    def wait(self) -> None:
        """Until all processes are here."""
        if self._state is not None:
            self._state.wait_for_everyone()

    def leave(self) -> None:
        """Takes leave of the others, after the last `wait`."""
        if self._state is not None:
            self._state.destroy_process_group()


ALONE: Final = World(None, "cpu")


def join(device: str) -> World:
    """Meets the other processes, if the environment says that there are any.

    Args:
        device: the torch device of the settings, "auto" for the accelerator that is here. Of several processes each takes its own.

    Raises:
        ConfigError: the launcher's variables are wrong, or the device is not here or not fit for several processes.
    """
    if process_count() == 1:
        return World(None, resolve_device(device))
    if ":" in device:
        kind = device.partition(":")[0]
        raise ConfigError(
            f"device {device} names one device for several processes: say {kind}, and each takes its own"
        )
    from accelerate import PartialState

    load_whole_models()
    device = resolve_device(device)
    state = PartialState(cpu=device == "cpu", timeout=PATIENCE)
    return World(state, "cpu" if device == "cpu" else str(state.device))
