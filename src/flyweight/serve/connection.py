"""Connections that may take their time, and not for ever."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 10.0  # for the head of a request, from when a connection is made
READ_SECONDS = 60.0  # for a client to read what fills its buffers


class PatientProtocol(H11Protocol):
    """Uvicorn's, which waits for ever for a head that comes letter by letter; this closes then."""

    _reading: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Asyncio's call."""
        super().connection_made(transport)
        self._head = asyncio.get_running_loop().call_later(HEAD_SECONDS, self._too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        """Asyncio's call."""
        self._head.cancel()
        if self._reading is not None:
            self._reading.cancel()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """Uvicorn's call: bytes have come."""
        before = self.cycle
        super().handle_events()
        if self.cycle is not before:  # a request has begun
            self._head.cancel()

    def on_response_complete(self) -> None:
        """Uvicorn's call: the next request of the connection is waited for."""
        super().on_response_complete()
        self._head.cancel()
        self._head = asyncio.get_running_loop().call_later(
            HEAD_SECONDS + self.timeout_keep_alive, self._too_slow
        )
        if self.cycle is not None and not self.cycle.response_complete:
            self._head.cancel()  # it had come already

    def pause_writing(self) -> None:
        """Asyncio's call: the client does not read what it is sent."""
        super().pause_writing()
        self._reading = asyncio.get_running_loop().call_later(READ_SECONDS, self._too_slow)

    def resume_writing(self) -> None:
        """Asyncio's call: it has read."""
        super().resume_writing()
        if self._reading is not None:
            self._reading.cancel()

    def _too_slow(self) -> None:
        self.transport.abort()  # `close` would wait until all is sent


__all__ = ["PatientProtocol"]
