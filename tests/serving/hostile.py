"""A corpus of hostile requests: bodies, pictures, paths and headers that no honest client sends."""

import base64
import io
import json
import random
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from PIL import Image


@dataclass(frozen=True)
class Hostile:
    """One request, and a name for the table."""

    kind: str
    method: str = "GET"
    path: str = "/v1/search"
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)


def picture(kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), "teal").save(buffer, kind)
    return buffer.getvalue()


def png(width: int, height: int, data: bytes = b"") -> bytes:
    """A PNG that claims a size; its data may be anything."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def pictures(seed: int) -> Iterator[tuple[str, bytes]]:
    """Bombs, cut files, polyglots and damaged files."""
    yield "bomb: 60000 x 60000 px", png(60_000, 60_000)
    yield "bomb: 8000 x 8400 px of zeros", png(8_000, 8_400, bytes(8_400 * 24_001))
    yield "bomb: a text that decompresses", png(1, 1, bytes(50_000_000))
    yield "polyglot: HTML after GIF", picture("GIF") + b"<script>alert(1)</script>"
    yield "polyglot: ZIP after PNG", picture() + b"PK\x03\x04" + bytes(100)
    yield "SVG", b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'
    yield "postscript", b"%!PS-Adobe-3.0\n(/etc/passwd) (r) file\n"
    yield "empty", b""
    numbers = random.Random(seed)
    for kind in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "AVIF"):
        whole = picture(kind)
        for _ in range(6):
            cut = bytearray(whole[: numbers.randrange(8, len(whole))])
            cut[numbers.randrange(8, len(cut)) if len(cut) > 8 else 0] ^= 1 << numbers.randrange(8)
            yield f"cut {kind}", bytes(cut)


BODIES: dict[str, bytes] = {
    "deep JSON": b"[" * 200_000,
    "deep objects": b'{"images":' * 50_000,
    "a huge number": b'{"images":[{"id":' + b"9" * 50_000 + b"}]}",
    "infinity": b'{"images":[{"id":1}],"min_score":Infinity}',
    "not a number": b'{"images":[{"id":1,"box":[NaN,0,1,1]}]}',
    "1e308": b'{"images":[{"id":1,"weight":1e308}],"k":1e308}',
    "lone surrogates": b'{"index":"\\ud800","images":[{"id":1}]}',
    "no UTF-8": b'{"index":"\xff\xfe"}',
    "zero bytes": b'{"index":"a\\u0000b","images":[{"id":1}],"mode":"\\u0000"}',
    "twice the same key": b'{"images":[],"images":[{"id":1}]}',
    "many images": json.dumps({"images": [{"id": 1}] * 100_000}).encode(),
    "many texts": json.dumps({"images": [{"id": 1}], "texts": ["a"] * 100_000}).encode(),
    "a glob of stars": json.dumps({"images": [{"id": 1}], "glob": ["*a" * 400 + "b"], "k": 1}).encode(),
    "a long age": json.dumps({"images": [{"id": 1}], "newer": "9" * 60 + "d"}).encode(),
    "prototype": b'{"__proto__":{"k":1},"images":[{"id":1}]}',
}
PATHS = (
    "/../../../../etc/passwd",
    "/static/../app.py",
    "/static/..%2f..%2fapp.py",
    "/static/%2e%2e/%2e%2e/settings/servers.py",
    "/static//etc/passwd",
    "/static/page.css%00.png",
    "/v1/indexes/..%2f..%2fetc/items/1/original",
    "/v1/indexes/gallery/items/1/original/../../../../../etc/passwd",
    "/v1/indexes/gallery/items/-1/original",
    "/v1/indexes/gallery/items/1e9/thumbnail",
    "/v1/indexes/gallery/items/99999999999999999999999/original",
    "/v1/indexes/gallery/items/1/thumbnail?side=99999999",
    "/v1/indexes/gallery/find?text=%2fetc%2fpasswd",
    "/v1/indexes/gallery/find?text=..%2f..%2f..%2fetc%2fpasswd",
    "/v1/uploads/..%2f..%2fetc%2fpasswd/thumbnail",
    "/?image=id:1&box=<script>",
    "/?image=<script>alert(1)</script>",
    "/?index=<script>alert(1)</script>",
    "/?first=-1",
    "/" + "a" * 10_000,
    "/v1/indexes/" + "%41" * 3_000,
)
URLS = (
    "http://127.0.0.1/",
    "http://localhost:22/",
    "http://169.254.169.254/latest/meta-data/",
    "http://[::1]/",
    "http://2130706433/",
    "http://0177.0.0.1/",
    "file:///etc/passwd",
    "ftp://127.0.0.1/",
    "gopher://127.0.0.1:6379/_INFO",
    "http://user:pass@127.0.0.1/",
    "http://allowed.example@127.0.0.1/",
)


def corpus(seed: int = 0, garbage: int = 60) -> Iterator[Hostile]:
    """Yield the requests; ``garbage`` of them are random bytes at random paths."""
    typed = {"content-type": "application/json"}
    for name, body in BODIES.items():
        yield Hostile(f"body: {name}", "POST", body=body, headers=typed)
    for path in PATHS:
        yield Hostile("path", path=path)
    for url in URLS:
        yield Hostile("URL", "POST", body=json.dumps({"images": [{"url": url}]}).encode(), headers=typed)
    for name, data in pictures(seed):
        asked = json.dumps({"images": [{"base64": base64.b64encode(data).decode()}], "k": 1}).encode()
        yield Hostile(f"picture: {name}", "POST", body=asked, headers=typed)
    multipart = {"content-type": "multipart/form-data; boundary=x"}
    for body in (b"--x\r\n", b"--x\r\nContent-Disposition: form-data; name=image; filename=a\r\n\r\n", b"x" * 1000):
        yield Hostile("form", "POST", "/v1/search/upload", body, multipart)
    numbers = random.Random(seed)
    places = ("/v1/search", "/v1/search/many", "/v1/search/upload", "/v1/score", "/v1/explain", "/search", "/login")
    for _ in range(garbage):
        body = numbers.randbytes(numbers.randrange(2_000))
        kind = numbers.choice(("application/json", "multipart/form-data; boundary=x", "text/plain", "\x01"))
        yield Hostile("garbage", "POST", numbers.choice(places), body, {"content-type": kind})
