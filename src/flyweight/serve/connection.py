"""Connections that may take their time, and not for ever."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 10.0  # for the head of a request, from when a connection is made


class PatientProtocol(H11Protocol):
    """Uvicorn's, which waits for ever for a head that comes letter by letter; this closes then."""

    def connection_made(self, transport: Any) -> None:
        """Asyncio's call."""
        super().connection_made(transport)
        self._head = asyncio.get_running_loop().call_later(HEAD_SECONDS, self._too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        """Asyncio's call."""
        self._head.cancel()
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

    def _too_slow(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()


__all__ = ["PatientProtocol"]
