"""`Budget`: an amount that concurrent requests share, such as decoded pixels."""

from __future__ import annotations

import asyncio
from collections import deque

__all__ = ["Budget"]


class Budget:
    """An amount that requests take and give back; those that find too little wait in order.

    All calls come from the thread of one event loop.

    Args:
        total: whole amount; no request may take more.
    """

    def __init__(self, total: int) -> None:
        self.left = total
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    def take_now(self, amount: int) -> bool:
        """Takes the amount if it is there; False if it is not."""
        if amount > self.left:
            return False
        self.left -= amount
        return True

    async def take(self, amount: int) -> None:
        """Waits for the amount behind earlier requests, and takes it."""
        if not self._waiting and self.take_now(amount):
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        place = (amount, turn)
        self._waiting.append(place)
        try:
            await turn
        except asyncio.CancelledError:
            if place in self._waiting:
                self._waiting.remove(place)
            self.give(0 if turn.cancelled() else amount)
            raise

    def give(self, amount: int) -> None:
        """Gives the amount back, and lets waiting requests have it."""
        self.left += amount
        while self._waiting:
            wanted, turn = self._waiting[0]
            if not turn.cancelled() and not self.take_now(wanted):
                return
            self._waiting.popleft()
            if not turn.cancelled():
                turn.set_result(None)
