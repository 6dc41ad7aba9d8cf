"""Close connections that send their headers too slowly: uvicorn itself waits for them without an end."""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_SECONDS = 10.0


class ImpatientProtocol(H11Protocol):
    """HTTP/1.1 with a deadline for the headers of each request."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._deadline = self.loop.call_later(HEADER_SECONDS, self._close_if_waiting)

    def data_received(self, data: bytes) -> None:
        """Take bytes; the first ones of a later request begin a new wait."""
        if self._deadline is None and self._is_between_requests():
            self._deadline = self.loop.call_later(HEADER_SECONDS, self._close_if_waiting)
        super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._stop_waiting()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """Stop waiting once the headers are there."""
        super().handle_events()
        if self._deadline is not None and not self._is_between_requests():
            self._stop_waiting()

    def _is_between_requests(self) -> bool:
        cycle: Any = self.cycle
        return cycle is None or bool(cycle.response_complete)

    def _close_if_waiting(self) -> None:
        self._deadline = None
        if self._is_between_requests() and not self.transport.is_closing():
            self.transport.close()

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
