"""The index that a search asks: one on this machine, or one of a server."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, cast

from cli.terminal.process import importing
from retrieval.errors import UsageError
from retrieval.settings import EngineSettings

if TYPE_CHECKING:
    from retrieval.search.engine import Engine

TOKEN_VARIABLE = "DIFFSIM_TOKEN"


def opened(place: str | Path, settings: EngineSettings) -> "Engine":
    """Open an index on this machine or in an object store."""
    with importing():
        from retrieval.search.engine import Engine

    return Engine.open(place, settings)


def connected(server: str, index: str | None, update: bool) -> "Engine":
    """Return a client of a server, which has the methods of an engine that a search calls.

    Raises:
        UsageError: no address of a server, an index that it does not have, or an update, which a server does not make.
        ServerError: the server can't be reached.
    """
    if update:
        raise UsageError("a server writes to no index: bring it up to date where it lies, with diffsim-index build")
    from retrieval.serving.client.client import Client

    return cast("Engine", Client(server, index, os.environ.get(TOKEN_VARIABLE) or None))
