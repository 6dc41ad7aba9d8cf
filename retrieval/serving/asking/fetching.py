"""Fetch an image from a URL: only from hosts that the server allows, and only at public addresses.

A name is resolved once. Every address must be public, and the connection goes to the address that was checked, so a
second answer of the name server changes nothing. Redirects are followed under the same rules.
"""

import http.client
import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import SplitResult, urljoin, urlsplit

from retrieval.errors import UsageError
from retrieval.serving.errors import ForbiddenError, TooLargeError

SECONDS = 10.0  # of a whole fetch
MOST_REDIRECTS = 3
CHUNK = 2**16
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # the last 32 bits are an IPv4 address
LOCAL_NAT64 = ipaddress.IPv6Network("64:ff9b:1::/48")
_PORTS = {"http": 80, "https": 443}

Resolve = Callable[[str, int], Sequence[str]]


def resolve(host: str, port: int) -> list[str]:
    """Return the addresses of a host."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(each[4][0]) for each in found))


def is_public(address: str) -> bool:
    """Say whether an address is one of the internet, also where it is written inside an IPv6 address."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        inner = parsed.ipv4_mapped or parsed.sixtofour or (parsed.teredo and parsed.teredo[1])
        if parsed in LOCAL_NAT64:
            return False
        if parsed in NAT64:
            inner = ipaddress.IPv4Address(int(parsed) & 0xFFFFFFFF)
        return is_public(str(inner)) if inner else parsed.is_global and not parsed.is_multicast
    return parsed.is_global and not parsed.is_multicast and not parsed.is_reserved


@dataclass(frozen=True)
class Fetcher:
    """Fetches images from the allowed ``hosts``, up to ``most`` bytes each."""

    hosts: Sequence[str]
    most: int
    resolve: Resolve = resolve
    is_allowed: Callable[[str], bool] = is_public

    def fetch(self, url: str) -> bytes:
        """Return the bytes at a URL.

        Raises:
            ForbiddenError: the host is not allowed, or one of its addresses is not public.
            TooLargeError: the answer has too many bytes.
            UsageError: the host can't be reached, or does not answer with a file.
        """
        until = time.monotonic() + SECONDS
        for _ in range(MOST_REDIRECTS + 1):
            parts = self._checked(url)
            location, body = self._get(parts, until)
            if location is None:
                return body
            url = urljoin(url, location)
        raise UsageError(f"{parts.hostname} redirects more than {MOST_REDIRECTS} times")

    def _checked(self, url: str) -> SplitResult:
        try:
            parts = urlsplit(url)
            host, _ = (parts.hostname or "").lower(), parts.port
        except ValueError as error:
            raise UsageError("the URL can't be read") from error
        if parts.scheme not in _PORTS or not host or parts.username or parts.password:
            raise UsageError("a URL must be like https://host/picture.jpg, without a user")
        if host not in self.hosts:
            known = ", ".join(self.hosts) or "none"
            raise ForbiddenError(f"the server fetches no images from '{host}'; allowed hosts: {known}")
        return parts

    def _get(self, parts: SplitResult, until: float) -> tuple[str | None, bytes]:
        host = parts.hostname or ""
        port = parts.port or _PORTS[parts.scheme]
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        try:
            addresses = self.resolve(host, port)
            if not addresses or not all(self.is_allowed(address) for address in addresses):
                raise ForbiddenError(f"'{host}' has an address that is not public, so nothing is fetched from it")
            connection = _PinnedConnection(host, port, addresses[0], parts.scheme == "https", until)
            try:
                connection.request("GET", target, headers={"Accept": "image/*", "User-Agent": "diffsim"})
                answer = connection.getresponse()
                if answer.status in (301, 302, 303, 307, 308):
                    return answer.headers["Location"] or "", b""
                if answer.status != 200:
                    raise UsageError(f"'{host}' answers with status {answer.status}")
                return None, self._body(answer, until, host)
            finally:
                connection.close()
        except (OSError, UnicodeError, http.client.HTTPException) as error:
            raise UsageError(f"'{host}' can't be reached") from error

    def _body(self, answer: http.client.HTTPResponse, until: float, host: str) -> bytes:
        parts, size = list[bytes](), 0
        while chunk := answer.read1(CHUNK):
            size += len(chunk)
            if size > self.most:
                raise TooLargeError("image_bytes", self.most, f"the file at '{host}'")
            if time.monotonic() > until:
                raise UsageError(f"'{host}' takes longer than {SECONDS:.0f} s")
            parts.append(chunk)
        return b"".join(parts)


class _PinnedConnection(http.client.HTTPConnection):
    """A connection to one address; the host's name is used for TLS and the Host header alone."""

    def __init__(self, host: str, port: int, address: str, is_secure: bool, until: float) -> None:
        super().__init__(host, port, timeout=max(0.1, until - time.monotonic()))
        self._address, self._is_secure = address, is_secure

    def connect(self) -> None:
        self.sock = socket.create_connection((self._address, self.port), self.timeout)
        if self._is_secure:
            self.sock = ssl.create_default_context().wrap_socket(self.sock, server_hostname=self.host)
