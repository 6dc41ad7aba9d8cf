"""The settings of the server."""

import ipaddress
from dataclasses import dataclass, field

from retrieval.errors import UsageError
from retrieval.settings.checks import at_least
from retrieval.settings.searches import EngineSettings

SHORTEST_TOKEN = 16  # characters of a server's token


@dataclass(frozen=True, kw_only=True)
class ServerLimits:
    """The most that one request to a server may ask for. A refusal names the field."""

    k: int = 10_000
    candidates: int = 10_000
    images: int = 16  # of one question, those to move away from included
    queries: int = 32  # questions in one request
    explained: int = 10  # candidates in one request
    page: int = 1_000  # items in one list
    exhaustive: int = 20_000  # items of an index that an exhaustive search may score
    grouped: int = 200_000  # items of an index whose duplicates or clusters are looked for
    neighbours: int = 64  # of each image that these compare
    groupings: int = 4  # of these that are computed or wait; more are told to come back
    body_bytes: int = 2**26
    image_bytes: int = 2**25  # of one image file
    pixels: int = 2**26  # of one image that is asked with or shown
    queue: int = 64  # requests that are read, wait or are computed; more are told to come back
    deadline_ms: int = 30_000  # from a request's arrival to its answer
    requests_per_minute: int = 0  # that search, score, explain or upload, by each token or address; 0: any number

    def __post_init__(self) -> None:
        at_least(1, **{name: value for name, value in vars(self).items() if name != "requests_per_minute"})
        at_least(0, requests_per_minute=self.requests_per_minute)


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """How a server runs."""

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = field(default=None, repr=False)  # every request must carry it; None: on loopback alone
    hosts: tuple[str, ...] = ()  # names that people may reach the server by, beside those of loopback and ``host``
    url_hosts: tuple[str, ...] = ()  # hosts that images may be fetched from; none: a URL is refused
    # A server reads: it keeps nothing in an index.
    engine: EngineSettings = field(default_factory=lambda: EngineSettings(max_cache=0))
    limits: ServerLimits = field(default_factory=ServerLimits)
    batch: int = 16  # questions that are answered together
    gather_ms: float = 4.0  # a batch waits so long for questions that are being read
    thumbnails: int = 256_000_000  # bytes of thumbnails in memory
    uploads: int = 256_000_000  # bytes of uploaded images in memory
    kept_groupings: int = 4  # results of duplicates and clusters in memory
    refresh_seconds: float = 1.0  # between looks for a new generation of each index

    def __post_init__(self) -> None:
        at_least(0, gather_ms=self.gather_ms, thumbnails=self.thumbnails, uploads=self.uploads)
        at_least(1, batch=self.batch, kept_groupings=self.kept_groupings)
        if not self.refresh_seconds > 0:
            raise UsageError(f"refresh seconds must be above 0, not {self.refresh_seconds}")
        if self.token is not None and len(self.token) < SHORTEST_TOKEN:
            raise UsageError(f"a token must have {SHORTEST_TOKEN} characters at least")
        if self.token is None and not is_loopback(self.host):
            raise UsageError(
                f"a server on {self.host} can be reached by other machines, so it needs a token", advice="give-token"
            )


def is_loopback(host: str) -> bool:
    """Say whether only this machine reaches a server on ``host``."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
