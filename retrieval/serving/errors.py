"""Errors that answer a request, and the HTTP status of every error."""

from collections.abc import Mapping
from typing import ClassVar

from retrieval.errors import (
    CancelledError,
    DependencyError,
    DiffSimError,
    ImageError,
    IndexNotFoundError,
    IndexStoreError,
    MemoryFullError,
    ModelError,
    RemoteStoreError,
    ReplicaLostError,
    UsageError,
)

REPLACED_SECONDS = 5  # in which a lost replica is usually replaced


class RequestError(DiffSimError):
    """A request that can't be answered; ``status`` is its HTTP status."""

    kind = "request"
    status: ClassVar[int] = 400

    @property
    def headers(self) -> dict[str, str]:
        """Headers of the answer, beside the usual ones."""
        return {}


class LimitError(RequestError):
    """A request asks for more than a limit of :class:`retrieval.settings.ServerLimits`; ``limit`` is the field."""

    kind = "limit"
    status = 422

    def __init__(self, limit: str, most: int, asked: str) -> None:
        super().__init__(f"{asked} is above the server's limit {limit} = {most}")
        self.limit = limit


class TooLargeError(LimitError):
    """A request has more bytes than the server reads."""

    status = 413


class NotFoundError(RequestError):
    """The server has no such index, item, upload or page."""

    kind = "not_found"
    status = 404


class UnauthorizedError(RequestError):
    """The token is missing or wrong."""

    kind = "unauthorized"
    status = 401

    @property
    def headers(self) -> dict[str, str]:
        """The scheme that the server expects."""
        return {"WWW-Authenticate": "Bearer"}


class ForbiddenError(RequestError):
    """The request comes by a name or from a site that the server does not answer."""

    kind = "forbidden"
    status = 403


class BusyError(RequestError):
    """The server has more requests than it can answer in time; the client may come back after ``seconds``."""

    kind = "busy"
    status = 429

    def __init__(self, message: str, seconds: int) -> None:
        super().__init__(message)
        self.seconds = max(1, seconds)

    @property
    def headers(self) -> dict[str, str]:
        """When to come back."""
        return {"Retry-After": str(self.seconds)}


class DeadlineError(RequestError):
    """The request's deadline passed before there was an answer."""

    kind = "deadline"
    status = 504


class StoppingError(RequestError):
    """The server is stopping and takes no more work."""

    kind = "stopping"
    status = 503


class GoneError(RequestError):
    """A catalogued file is no longer there, or has changed."""

    kind = "gone"
    status = 410


_STATUSES: Mapping[type[DiffSimError], int] = {
    UsageError: 422,
    ImageError: 422,
    IndexNotFoundError: 404,
    IndexStoreError: 503,
    RemoteStoreError: 503,
    ReplicaLostError: 503,
    MemoryFullError: 503,
    ModelError: 503,
    DependencyError: 503,
    CancelledError: 503,
}


def status_of(error: DiffSimError) -> int:
    """Return the HTTP status that answers an error."""
    if isinstance(error, RequestError):
        return error.status
    return next((status for kind, status in _STATUSES.items() if isinstance(error, kind)), 500)


def headers_of(error: DiffSimError) -> dict[str, str]:
    """Return the headers that an error adds to its answer."""
    if isinstance(error, ReplicaLostError):
        return {"Retry-After": str(REPLACED_SECONDS)}
    return error.headers if isinstance(error, RequestError) else {}


def to_json(error: DiffSimError) -> dict[str, str]:
    """Return the answer's JSON: a sentence, a stable word, and the limit that was passed, if any."""
    limit = {"limit": error.limit} if isinstance(error, LimitError) else {}
    return {"error": str(error), "kind": error.kind, **limit}
