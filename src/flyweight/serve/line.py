"""Who is answered now, who waits, and who is told to come back later."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextlib import suppress

from flyweight.serve.faults import Fault

_NEW = 0.2  # share of the newest answer in the mean of their seconds


class Line:
    """`streams` answers at a time, at most `places` waiting in their order.

    Lives in one event loop.
    """

    def __init__(self, streams: int, places: int) -> None:
        self.streams, self.places = streams, places
        self.active = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._seconds = 1.0  # that an answer takes, as far as is known

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def full(self) -> bool:
        """Whether not even one more can wait."""
        return self.active >= self.streams and self.waiting >= self.places

    def check(self, answers: int = 1) -> None:
        """Fault 429 unless so many more can be answered or wait; says when to come again."""
        free = max(0, self.streams - self.active - self.waiting)
        if self.waiting + answers - free > self.places:
            raise Fault(
                429,
                f"{self.active} answers are being written and {self.waiting} wait: there is no "
                "room for more. Try again later.",
                code="queue_full",
                retry=self._seconds * (self.waiting + 1) / self.streams,
            )

    async def enter(self) -> float:
        """Wait for a stream; it is held until `leave`, which is given what this returns."""
        self.check()
        if self.active < self.streams and not self._waiting:
            self.active += 1
        else:
            await self._wait()
        return time.monotonic()

    def leave(self, since: float) -> None:
        """Give the stream back: the next in the line has it."""
        self._seconds += _NEW * (time.monotonic() - since - self._seconds)
        self._pass_on()

    async def _wait(self) -> None:
        place = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():  # it was given a stream, and goes
                self._pass_on()
            else:
                with suppress(ValueError):  # passed over already, by one who left
                    self._waiting.remove(place)
            raise

    def _pass_on(self) -> None:
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                return
        self.active -= 1


__all__ = ["Line"]
