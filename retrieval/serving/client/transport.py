"""Send requests to a server, wait where it is busy, and turn its errors into those of the library."""

import http.client
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, Request, build_opener

from retrieval.errors import (
    DiffSimError,
    ImageError,
    IndexCorruptError,
    IndexIncompatibleError,
    IndexNotFoundError,
    ModelError,
    UsageError,
)

TRIES = 6  # of a request that a busy server refuses
LONGEST_WAIT = 5.0  # seconds between two tries
_KINDS: Mapping[str, type[DiffSimError]] = {
    each.kind: each for each in (UsageError, IndexNotFoundError, IndexCorruptError, IndexIncompatibleError, ModelError)
}
_USAGE = ("limit", "request", "not_found", "forbidden")  # kinds of a server that say what was asked for is wrong


class ServerError(DiffSimError):
    """A server can't be reached, or does not answer as one of this software does."""

    kind = "server"


class _NoRedirect(HTTPRedirectHandler):
    """A server never redirects the API; a token must not follow to another host."""

    def redirect_request(self, *_: Any) -> None:
        return None


@dataclass(frozen=True)
class Transport:
    """One server; ``token`` is sent with every request."""

    url: str  # without a slash at its end
    token: str | None = field(repr=False)
    seconds: float  # that one answer may take
    _opener: OpenerDirector = field(default_factory=lambda: build_opener(_NoRedirect), repr=False)

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
            raise UsageError(f"'{self.url}' is no address of a server: write it like http://127.0.0.1:8000")

    def ask(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Return the JSON at ``path``; with a body, of a POST request.

        Raises:
            ServerError: the server can't be reached, is busy, or answers with something else.
            DiffSimError: the error that the server met, by its kind.
        """
        data = self.fetch(path, body)
        try:
            return json.loads(data)
        except ValueError as error:
            raise ServerError(f"{self.url} does not answer as a server of this software") from error

    def fetch(self, path: str, body: Mapping[str, Any] | None = None) -> bytes:
        """Return the bytes at ``path``; see :meth:`ask`."""
        for number in range(1, TRIES + 1):
            try:
                return self._once(path, body)
            except HTTPError as error:
                with error:
                    if error.code != 429 or number == TRIES:
                        raise self._meant(error) from error
                    wait = error.headers.get("Retry-After", "1")
                time.sleep(min(LONGEST_WAIT, float(wait) if wait.isdecimal() else 1.0))
        raise AssertionError("unreachable")

    def _once(self, path: str, body: Mapping[str, Any] | None) -> bytes:
        headers = {"Accept": "application/json"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        data = None
        if body is not None:
            data, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
        request = Request(self.url + path, data, headers)
        try:
            with self._opener.open(request, timeout=self.seconds) as answer:
                found: bytes = answer.read()
                return found
        except HTTPError:
            raise
        except (URLError, OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise ServerError(f"{self.url} can't be reached: {reason}") from error

    def _meant(self, error: HTTPError) -> DiffSimError:
        try:
            answer = json.loads(error.read())
            return as_error(answer["error"], answer["kind"])
        except (ValueError, KeyError, TypeError):
            return ServerError(f"{self.url} answers with status {error.code}")


def as_error(sentence: str, kind: str) -> DiffSimError:
    """Return a server's error as the error that an engine would have raised."""
    if kind == ImageError.kind:
        name, _, detail = sentence.partition(": ")
        return ImageError("unreadable", name, detail)
    if kind in _USAGE:
        return UsageError(sentence)
    return _KINDS.get(kind, ServerError)(sentence)
