"""The outermost layer of the server: access, limits on bodies, headers of safety, metrics and the log."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from retrieval.errors import DiffSimError
from retrieval.serving.errors import TooLargeError, to_json
from retrieval.serving.metrics import ServerMetrics
from retrieval.serving.safety.access import OPEN_BELOW, Access
from retrieval.text import printable

logger = logging.getLogger(__name__)

BODY_SECONDS = 30.0  # until the body of a request must be there
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",  # with none, browsers hide the origin of our own forms
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}

Refuse = Callable[[Request, DiffSimError], Response]


class Guard:
    """Wraps an application; ``refuse`` makes the answer to a request that may not come in."""

    def __init__(self, app: ASGIApp, access: Access, metrics: ServerMetrics, body_bytes: int, refuse: Refuse) -> None:
        self._app, self._access, self._metrics = app, access, metrics
        self._body_bytes, self._refuse = body_bytes, refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)
        else:  # no route talks by web sockets
            await send({"type": "websocket.close", "code": 1008})

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun, sending = time.perf_counter(), _Sending(send, scope["path"])
        try:
            self._check(scope)
            await self._app(scope, BoundedBody(receive, self._body_bytes), sending)
        except DiffSimError as error:
            await self._refuse(Request(scope, receive), error)(scope, receive, sending)
        finally:
            seconds = time.perf_counter() - begun
            route = getattr(scope.get("route"), "path", "none")
            self._metrics.requests.labels(_known(scope["method"]), route, str(sending.status)).inc()
            self._metrics.latency.labels(route).observe(seconds)
            path = printable(scope["path"][:200])  # never the query string, which may name private things
            logger.info("%s %s %d %.1f ms", _known(scope["method"]), path, sending.status, 1000 * seconds)

    def _check(self, scope: Scope) -> None:
        headers, client = Headers(scope=scope), scope.get("client") or ("unknown", 0)
        self._access.check(scope["method"], scope["path"], scope["query_string"], headers, client[0])
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length[:20]) > self._body_bytes:
            raise TooLargeError("body_bytes", self._body_bytes, f"a body of {length[:20]} bytes")


def _known(method: str) -> str:
    return method if method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH") else "other"


class _Sending:
    """Sends an answer with the headers of safety, and remembers its status."""

    def __init__(self, send: Send, path: str) -> None:
        self._send = send
        self._kept = "no-cache" if path.startswith(OPEN_BELOW) else "no-store"
        self.status = 0  # the client went before there was an answer

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(raw=message.setdefault("headers", []))
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
            headers.setdefault("cache-control", self._kept)
        await self._send(message)


class BoundedBody:
    """Receives the body of a request: not too many bytes, and not too slowly."""

    def __init__(self, receive: Receive, most: int, seconds: float = BODY_SECONDS) -> None:
        self._receive, self._most = receive, most
        self._until = time.monotonic() + seconds
        self._bytes = 0
        self._is_whole = False

    async def __call__(self) -> Message:
        """Return the next message; an HTTPException, which every parser lets pass, ends the request."""
        if self._is_whole:
            return await self._receive()
        message = await self._next(self._receive())
        self._bytes += len(message.get("body", b""))
        self._is_whole = not message.get("more_body", False)
        if self._bytes > self._most:
            error = TooLargeError("body_bytes", self._most, "the body")
            raise HTTPException(error.status, detail=to_json(error))  # type: ignore[arg-type]
        return message

    async def _next(self, message: Awaitable[Any]) -> Message:
        try:
            found: Message = await asyncio.wait_for(message, max(0.0, self._until - time.monotonic()))
        except TimeoutError as error:
            detail: Any = {"error": f"the body took longer than {BODY_SECONDS:.0f} s", "kind": "deadline"}
            raise HTTPException(408, detail=detail) from error
        return found
