"""Run a server on a free port of loopback, in a thread of this process."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from retrieval.encoding.loaded_models import LoadModels
from retrieval.serving.app import create_app
from retrieval.serving.running import configured
from retrieval.settings import ServerSettings


@contextmanager
def serving(
    indexes: dict[str, Path], settings: ServerSettings | None = None, load: LoadModels | None = None
) -> Iterator[str]:
    """Yield the URL of a server of these indexes, without a slash at its end."""
    settings = settings or ServerSettings()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(configured(create_app(indexes, settings, load), settings))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(30)
