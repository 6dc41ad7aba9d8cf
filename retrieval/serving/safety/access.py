"""Who may ask: the name that the server was reached by, the site that a request comes from, the token, the rate."""

import hashlib
import hmac
import threading
import time
from collections import OrderedDict
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from retrieval.serving.errors import BusyError, ForbiddenError, UnauthorizedError
from retrieval.settings import ServerSettings

COOKIE = "diffsim"
LOOPBACK = ("localhost", "127.0.0.1", "::1")
OPEN = ("/healthz", "/readyz", "/login")  # paths that need no token
OPEN_BELOW = "/static/"
LIMITED = ("/v1/search", "/v1/score", "/v1/explain", "/v1/uploads", "/search", "/login")
LONG = ("/duplicates", "/clusters", "/progress")  # ends of paths, of the API and of the page, that may begin long work
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
OWN_SITE = ("same-origin", "none")
MOST_CALLERS = 10_000


class Access:
    """The rules of one server."""

    def __init__(self, settings: ServerSettings) -> None:
        self._token = settings.token
        self._hosts = {name.lower() for name in (*LOOPBACK, settings.host, *settings.hosts)}
        self._rate = Rate(settings.limits.requests_per_minute)

    @property
    def needs_token(self) -> bool:
        """Whether a request must carry a token."""
        return self._token is not None

    def check(self, method: str, path: str, query: bytes, headers: Headers, client: str) -> None:
        """Raise a RequestError unless the request may be answered."""
        self._check_host(headers)
        self._check_site(method, headers)
        is_open = path in OPEN or path.startswith(OPEN_BELOW)
        if self._token is not None and not is_open and not self._is_known(headers):
            raise UnauthorizedError("this server needs its token: send it as 'Authorization: Bearer TOKEN'")
        asks = method not in SAFE_METHODS and path.startswith(LIMITED)
        if asks or path.endswith(LONG) or (path == "/" and b"image=" in query):
            self._rate.take(client if self._token is None or is_open else "token")

    def accepts(self, token: str) -> bool:
        """Say whether a token is the right one, in a time that does not tell how much of it is right."""
        return self._token is not None and hmac.compare_digest(token.encode(), self._token.encode())

    def cookie(self) -> str:
        """Return the cookie that stands for the token; the token can't be read from it."""
        return hmac.new((self._token or "").encode(), b"diffsim cookie", hashlib.sha256).hexdigest()

    def _is_known(self, headers: Headers) -> bool:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self.accepts(token.strip())
        try:
            held = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            return False
        return held is not None and hmac.compare_digest(held.value.encode(), self.cookie().encode())

    def _check_host(self, headers: Headers) -> None:
        host = _host_in(f"//{headers.get('host', '')}")
        if len(headers.getlist("host")) != 1 or host not in self._hosts:
            raise ForbiddenError("this server does not answer by that name; name it when the server is started")

    def _check_site(self, method: str, headers: Headers) -> None:
        """Refuse what another site's page sends or embeds, except that a person follows a link: browsers say so."""
        origin, site = headers.get("origin"), headers.get("sec-fetch-site", "none")
        if method in SAFE_METHODS:
            is_ours = site in OWN_SITE or headers.get("sec-fetch-mode") == "navigate"
        elif origin is not None:
            is_ours = netloc_of(origin) == headers.get("host", "").lower()
        else:
            is_ours = site in OWN_SITE
        if not is_ours:
            raise ForbiddenError("this server takes no requests from pages of other sites")


def _host_in(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").lower()
    except ValueError:
        return ""


def netloc_of(url: str) -> str:
    """Return host and port of a URL, as a Host header has them; empty if it has none."""
    try:
        return urlsplit(url).netloc.lower()
    except ValueError:
        return ""


class Rate:
    """At most so many requests a minute by each caller; unused ones are saved up to a quarter of a minute's."""

    def __init__(self, per_minute: int) -> None:
        self._per_second, self._most = per_minute / 60, max(1.0, per_minute / 4)
        self._callers: OrderedDict[str, tuple[float, float]] = OrderedDict()  # what is left, and when
        self._lock = threading.Lock()

    def take(self, caller: str) -> None:
        """Count one request; a BusyError if there are too many."""
        if not self._per_second:
            return
        with self._lock:
            now = time.monotonic()
            left, then = self._callers.pop(caller, (self._most, now))
            left = min(self._most, left + (now - then) * self._per_second)
            self._callers[caller] = (max(0.0, left - 1) if left >= 1 else left, now)
            while len(self._callers) > MOST_CALLERS:
                self._callers.popitem(last=False)
        if left < 1:
            limit = round(self._per_second * 60)
            seconds = int((1 - left) / self._per_second) + 1
            raise BusyError(f"more requests than the server's limit requests_per_minute = {limit}", seconds)
