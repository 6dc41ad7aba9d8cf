"""URLs: allowed hosts alone, public addresses alone, also behind redirects and a name that changes its mind."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from retrieval.errors import UsageError
from retrieval.serving.asking.fetching import Fetcher, is_public
from retrieval.serving.errors import ForbiddenError, TooLargeError

PRIVATE = (
    *("0.0.0.0", "10.1.2.3", "100.64.0.1", "127.0.0.1", "127.255.255.254", "169.254.169.254", "172.16.0.1"),
    *("172.31.255.255", "192.168.1.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255"),
    *(
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::1",
    ),
    *("fc00::1", "fd12::1", "fe80::1", "fe80::1%eth0", "ff02::1", "2002:7f00:1::", "2002:a9fe:a9fe::", "2001:db8::1"),
)


@pytest.mark.parametrize("address", PRIVATE)
def test_no_private_address_is_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1::1", "8.8.8.8"])
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(address)


class Pages(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        answers = {"/a.png": b"picture", "/large": bytes(2000)}
        target = {
            "/away": "http://inner.example/a.png",
            "/loop": "/loop",
            "/near": "/a.png",
            "/file": "file:///etc/passwd",
        }
        self.send_response(302 if self.path in target else 200 if self.path in answers else 404)
        if self.path in target:
            self.send_header("Location", target[self.path])
        self.end_headers()
        self.wfile.write(answers.get(self.path, b""))

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Pages) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def fetcher(*allowed: str, addresses: tuple[str, ...] = ("127.0.0.1",), public: bool = True) -> Fetcher:
    """A fetcher whose names lead to loopback, which counts as public here."""
    return Fetcher(allowed, 1000, lambda host, port: addresses, lambda address: public)


def test_a_file_of_an_allowed_host_is_fetched(port: int) -> None:
    assert fetcher("pictures.example").fetch(f"http://pictures.example:{port}/a.png") == b"picture"
    assert fetcher("pictures.example").fetch(f"http://PICTURES.example:{port}/near") == b"picture"


@pytest.mark.parametrize(
    "url",
    [
        "http://other.example/a.png",
        "http://127.0.0.1/a.png",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://[::ffff:127.0.0.1]/",
        "http://pictures.example.evil.example/",
        "http://pictures.example@evil.example/",
        "file:///etc/passwd",
        "gopher://pictures.example/",
        "http:///a",
        "http://pictures.example:99999/",
        "http://pictures.example\\@evil.example/",
        "//pictures.example/",
        "http://pictures.example\r\nHost: evil/",
    ],
)
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises((ForbiddenError, UsageError)):
        fetcher("pictures.example").fetch(url)


def test_an_allowed_name_with_a_private_address_is_refused(port: int) -> None:
    real = Fetcher(["localhost"], 1000)
    with pytest.raises(ForbiddenError, match="not public"):
        real.fetch(f"http://localhost:{port}/a.png")
    one_of_two = Fetcher(["pictures.example"], 1000, lambda host, port: ("93.184.216.34", "10.0.0.1"))
    with pytest.raises(ForbiddenError, match="not public"):
        one_of_two.fetch("http://pictures.example/a.png")


def test_a_name_that_changes_its_mind_changes_nothing(port: int) -> None:
    asked: list[str] = []

    def resolve(host: str, _: int) -> tuple[str, ...]:
        asked.append(host)
        return ("127.0.0.1",) if len(asked) == 1 else ("10.0.0.1",)

    found = Fetcher(["pictures.example"], 1000, resolve, lambda address: address == "127.0.0.1")
    assert found.fetch(f"http://pictures.example:{port}/a.png") == b"picture"
    assert asked == ["pictures.example"], "the name is resolved once, and the connection goes to that address"


@pytest.mark.parametrize("path", ["away", "loop", "file"])
def test_redirects_follow_the_same_rules(port: int, path: str) -> None:
    with pytest.raises((ForbiddenError, UsageError)):
        fetcher("pictures.example").fetch(f"http://pictures.example:{port}/{path}")


def test_large_and_missing_files(port: int) -> None:
    with pytest.raises(TooLargeError):
        fetcher("pictures.example").fetch(f"http://pictures.example:{port}/large")
    with pytest.raises(UsageError, match="status 404"):
        fetcher("pictures.example").fetch(f"http://pictures.example:{port}/none")
