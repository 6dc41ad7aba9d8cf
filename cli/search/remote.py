"""Search with a server instead of an index on this machine."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from retrieval.errors import UsageError

if TYPE_CHECKING:
    from retrieval.search.engine import Engine

TOKEN_VARIABLE = "DIFFSIM_TOKEN"


def connected(server: str, index: str | None, update: bool, environment: Mapping[str, str]) -> "Engine":
    """Return a client of a server, which has the methods of an engine that a search calls.

    Raises:
        UsageError: no address of a server, an index that it does not have, or an update, which a server does not make.
        ServerError: the server can't be reached.
    """
    if update:
        raise UsageError("a server writes to no index: bring it up to date where it lies, with diffsim-index build")
    from retrieval.serving.client.client import Client

    return cast("Engine", Client(server, index, environment.get(TOKEN_VARIABLE) or None))
