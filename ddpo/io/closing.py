"""Objects that a `with` block closes at its end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self

__all__ = ["ClosedOnExit"]


class ClosedOnExit(ABC):
    """A context manager that gives itself and calls its own `close` at the end of the block."""

    @abstractmethod
    def close(self) -> None:
        """Releases files and connections."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
