"""Run an application on a socket until the process is asked to end."""

import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from retrieval.errors import UsageError
from retrieval.serving.safety.slow_clients import ImpatientProtocol
from retrieval.settings import ServerSettings

MOST_CONNECTIONS = 1_000
BACKLOG = 512  # connections that wait to be accepted
IDLE_SECONDS = 15  # that a connection may wait for its next request
STOP_SECONDS = 5  # beyond the longest deadline, for answers that are being sent


@contextmanager
def listen(host: str, port: int) -> Iterator[socket.socket]:
    """Open the socket of a server; a UsageError if the port is taken, or the address is another machine's."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        listening = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise UsageError(f"can't listen on {host}, port {port}: {error.strerror or error}") from error
    with listening:
        yield listening


def run_server(
    app: ASGIApp, listening: socket.socket, settings: ServerSettings, on_started: Callable[[str], None]
) -> None:
    """Answer requests until SIGINT or SIGTERM; then answer the accepted ones and return.

    ``on_started`` is called with the page's URL once requests are answered.
    """
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    server = _Telling(configured(app, settings), lambda: on_started(url_of(listening)))
    server.run(sockets=[listening])


def configured(app: ASGIApp, settings: ServerSettings) -> uvicorn.Config:
    """Return how an application is run."""
    return uvicorn.Config(
        app,
        http=ImpatientProtocol,
        ws="none",
        log_config=None,
        access_log=False,  # the guard logs requests without their query strings
        server_header=False,
        proxy_headers=False,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=settings.limits.deadline_ms // 1000 + STOP_SECONDS,
    )


class _Telling(uvicorn.Server):
    """A server that says when it has started."""

    def __init__(self, config: uvicorn.Config, on_started: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_started = on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_started()


def url_of(listening: socket.socket) -> str:
    """Return the URL of the page of a server on a socket."""
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}/"
