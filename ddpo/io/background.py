"""A function call that runs in a background thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Background"]

T = TypeVar("T")


class Background(Generic[T]):
    """A function call that starts at once in a daemon thread.

    Python cannot stop a thread: an abandoned one ends with its call or with the process.

    Args:
        function: Function without arguments.
        name: Name of the thread.
    """

    def __init__(self, function: Callable[[], T], name: str) -> None:
        self._results: list[T] = []
        self._errors: list[BaseException] = []

        def run() -> None:
            try:
                self._results.append(function())
            except KeyboardInterrupt as error:  # Ctrl-C reaches the main thread alone
                failure = RuntimeError(f"the call raised {type(error).__name__}")
                self._errors.append(failure.with_traceback(error.__traceback__))
            except BaseException as error:  # noqa: BLE001  # raised again in `result`
                self._errors.append(error)

        self._thread = threading.Thread(target=run, daemon=True, name=name)
        self._thread.start()

    def result(self, seconds: float | None = None) -> T:
        """Waits for the return value of the function, or raises its exception.

        Raises:
            TimeoutError: The call takes longer than `seconds`; its thread is abandoned.
        """
        self._thread.join(seconds)
        if self._errors:
            raise self._errors[0]
        if not self._results:
            raise TimeoutError(f"no answer within {seconds:g} s")
        return self._results[0]
