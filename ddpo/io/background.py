"""A call that goes on in a thread of its own while its caller does something else."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Background"]

T = TypeVar("T")


class Background(Generic[T]):
    """Begins to call `function` at once. Python cannot stop a thread: one whose result nobody waits for ends with its call or the process.

    Args:
        function: what is called, without arguments.
        name: of the thread.
    """

    def __init__(self, function: Callable[[], T], name: str) -> None:
        self._results: list[T] = []
        self._errors: list[BaseException] = []

        def run() -> None:
            try:
                self._results.append(function())
            except BaseException as error:  # noqa: BLE001  # raised again in `result`
                self._errors.append(error)

        self._thread = threading.Thread(target=run, daemon=True, name=name)
        self._thread.start()

    def result(self, seconds: float | None = None) -> T:
        """Waits for what the function returns, or raises what it raised.

        Raises:
            TimeoutError: that took longer than `seconds`; the thread is left behind.
        """
        self._thread.join(seconds)
        if self._errors:
            raise self._errors[0]
        if not self._results:
            raise TimeoutError(f"no answer within {seconds:g} s")
        return self._results[0]
