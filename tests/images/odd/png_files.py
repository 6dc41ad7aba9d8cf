"""PNG files written by hand: every colour type and depth, interlacing, transparent colours, colour chunks, damage."""

import struct
import zlib
from collections.abc import Iterator

import numpy as np

from tests.images.odd.picture import SPACES, Case, as_rgb, bytes_of, grey, picture
from tests.images.odd.profiles import rgb_profile

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


def chunk(kind: bytes, content: bytes, crc: int | None = None) -> bytes:
    checksum = zlib.crc32(kind + content) if crc is None else crc
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def png(samples: np.ndarray, kind: int, depth: int, extra: bytes = b"", interlaced: bool = False) -> bytes:
    """Return a PNG of integer samples [H, W, channels]; ``extra`` stands before the image data."""
    height, width, _ = samples.shape
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, interlaced)
    parts = [samples[y::dy, x::dx] for y, x, dy, dx in _PASSES] if interlaced else [samples]
    body = b"".join(_filtered(part, depth) for part in parts if part.size)
    data = zlib.compress(body)
    half = len(data) // 2
    image = chunk(b"IDAT", data[:half]) + chunk(b"IDAT", data[half:])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + image + chunk(b"IEND", b"")


def _filtered(samples: np.ndarray, depth: int) -> bytes:
    """Pack the samples and filter the rows by none, sub and up in turn."""
    rows = samples.reshape(len(samples), -1)
    if depth == 16:
        packed = rows.astype(">u2").view(np.uint8).reshape(len(rows), -1)
    elif depth == 8:
        packed = rows.astype(np.uint8)
    else:
        bits = (rows[..., None] >> np.arange(depth - 1, -1, -1)) & 1
        packed = np.packbits(bits.reshape(len(rows), -1).astype(np.uint8), axis=1)
    step = max(1, samples.shape[2] * depth // 8)
    found = b""
    for y, row in enumerate(packed):
        way = y % 3
        before = np.zeros_like(row)
        if way == 1:
            before[step:] = row[:-step]
        elif way == 2 and y:
            before = packed[y - 1]
        found += bytes([way]) + (row - before).astype(np.uint8).tobytes()
    return found


def scaled(values: np.ndarray, depth: int) -> np.ndarray:
    return np.rint(values / 255 * (2**depth - 1)).astype(int)


def shown(samples: np.ndarray, depth: int) -> np.ndarray:
    return samples * (255 / (2**depth - 1))


def plain() -> Iterator[Case]:
    """Every colour type and depth, plain and interlaced."""
    alpha = np.tile(np.linspace(0, 255, 48), (32, 1))[..., None]
    for interlaced in (False, True):
        tail = "interlaced" if interlaced else "plain"
        for depth in (1, 2, 4, 8, 16):
            g = scaled(grey(), depth)[..., None]
            yield Case(f"png-grey-{depth}-{tail}", png(g, 0, depth, b"", interlaced), as_rgb(shown(g[..., 0], depth)))
            if depth < 16:
                yield Case(f"png-palette-{depth}-{tail}", *palette(depth, interlaced))
        for depth in (8, 16):
            g, rgb, a = scaled(grey(), depth)[..., None], scaled(picture(), depth), scaled(alpha, depth)
            yield Case(f"png-rgb-{depth}-{tail}", png(rgb, 2, depth, b"", interlaced), shown(rgb, depth))
            share = a / (2**depth - 1)
            for kind, name, colours in ((4, "grey-alpha", g), (6, "rgb-alpha", rgb)):
                over = shown(colours, depth) * share + 255 * (1 - share)
                data = png(np.concatenate([colours, a], axis=2), kind, depth, b"", interlaced)
                yield Case(f"png-{name}-{depth}-{tail}", data, np.broadcast_to(over, (32, 48, 3)))


def palette(depth: int, interlaced: bool, clear: int | None = None) -> tuple[bytes, np.ndarray]:
    rng = np.random.default_rng(depth)
    colours = rng.integers(0, 256, (2**depth, 3))
    indices = scaled(grey(), depth)
    pixels = colours[indices].astype(float)
    extra = chunk(b"PLTE", colours.astype(np.uint8).tobytes())
    if clear is not None:
        extra += chunk(b"tRNS", bytes([255] * clear + [0]))
        pixels[indices == clear] = 255
    return png(indices[..., None], 3, depth, extra, interlaced), pixels


def transparent() -> Iterator[Case]:
    """One transparent value or colour, by its 16-bit number; the neighbour that differs in a low byte stays."""
    for depth in (1, 2, 4, 8, 16):
        g = scaled(grey(), depth)
        clear = int(np.median(g))
        pixels = as_rgb(shown(g, depth))
        pixels[g == clear] = 255
        yield Case(
            f"png-clear-grey-{depth}", png(g[..., None], 0, depth, chunk(b"tRNS", struct.pack(">H", clear))), pixels
        )
        if depth < 16:
            yield Case(f"png-clear-palette-{depth}", *palette(depth, False, clear=2**depth // 2))
    for depth in (8, 16):
        rgb = scaled(picture(), depth)
        rgb[:16] = rgb[0, 0]
        rgb[8:16, :, 0] += 1 if depth == 8 else -1  # another colour, for 16 bits mostly in the low byte
        extra = chunk(b"tRNS", struct.pack(">HHH", *rgb[0, 0]))
        pixels = shown(rgb, depth)
        pixels[(rgb == rgb[0, 0]).all(axis=2)] = 255
        yield Case(f"png-clear-rgb-{depth}", png(rgb, 2, depth, extra), pixels)


def colour_chunks() -> Iterator[Case]:
    """The precedence of cICP, iCCP, sRGB, and gAMA with cHRM, from strong to weak."""
    p3, adobe, prophoto = SPACES[0], SPACES[1], SPACES[2]
    srgb, wrong = chunk(b"sRGB", b"\0"), chunk(b"gAMA", struct.pack(">I", 100_000))
    truth = bytes_of(picture()).astype(float)

    def case(name: str, held: np.ndarray, *chunks: bytes) -> Case:
        return Case(f"png-{name}", png(bytes_of(held), 2, 8, b"".join(chunks)), truth)

    for gamma in (1.0, 1.8, 2.2, 2.6):
        held = SPACES[4].__class__("", p3.white, SPACES[4].primaries, gamma).holding(picture())
        yield case(f"gama-{gamma}", held, _gama(gamma))
    for space in (p3, adobe, prophoto):
        yield case(f"gama-chrm-{space.name}", space.holding(picture()), _gama(space.gamma), _chrm(space))
        yield case(f"iccp-over-all-{space.name}", space.holding(picture()), _iccp(space), srgb, wrong)
    yield case("srgb-over-gama", picture(), srgb, wrong, _chrm(prophoto))
    yield case("chrm-alone", picture(), _chrm(prophoto))
    yield case("gama-zero", picture(), chunk(b"gAMA", bytes(4)))
    coded = SPACES[0].__class__("", p3.white, p3.primaries, 2.2).holding(picture())
    yield case("cicp-over-iccp", coded, chunk(b"cICP", bytes([12, 4, 0, 1])), _iccp(prophoto))
    yield case("cicp-srgb", picture(), chunk(b"cICP", bytes([1, 13, 0, 1])), _iccp(prophoto))
    yield case("iccp-bad-crc", picture(), chunk(b"iCCP", b"x\0\0" + zlib.compress(rgb_profile(prophoto)), 1))
    yield case("iccp-bad-zlib", picture(), chunk(b"iCCP", b"x\0\0nonsense"))
    yield case("gama-bad-crc", picture(), chunk(b"gAMA", struct.pack(">I", 100_000), 1))


def _gama(gamma: float) -> bytes:
    return chunk(b"gAMA", struct.pack(">I", round(100_000 / gamma)))


def _chrm(space: object) -> bytes:
    points = (space.white, *space.primaries)  # type: ignore[attr-defined]
    return chunk(b"cHRM", struct.pack(">8I", *(round(v * 100_000) for point in points for v in point)))


def _iccp(space: object) -> bytes:
    return chunk(b"iCCP", b"x\0\0" + zlib.compress(rgb_profile(space)))  # type: ignore[arg-type]


def damaged_ancillary() -> Iterator[Case]:
    """Chunks that no pixel depends on, too large or with a wrong checksum."""
    rgb, truth = bytes_of(picture()), bytes_of(picture()).astype(float)
    big = b"Comment\0\0" + zlib.compress(bytes(3 << 20))
    kinds = {b"tEXt": b"a\0b", b"zTXt": big, b"iTXt": b"a\0\0\0\0\0b", b"tIME": bytes(7), b"pHYs": bytes(9)}
    kinds |= {b"bKGD": bytes(6), b"eXIf": b"MM\0*", b"hIST": bytes(4), b"sBIT": b"\x08\x08\x08", b"prVt": b"own"}
    for kind, content in kinds.items():
        yield Case(f"png-bad-crc-{kind.decode()}", png(rgb, 2, 8, chunk(kind, content, 7)), truth)
        yield Case(
            f"png-odd-{kind.decode()}", png(rgb, 2, 8, chunk(kind, content * (1 if kind != b"tEXt" else 9))), truth
        )
    large = {
        "ztxt": chunk(b"zTXt", big),
        "itxt": chunk(b"iTXt", b"a\0\1\0\0\0" + zlib.compress(bytes(3 << 20))),
        "text": chunk(b"tEXt", b"a\0" + b"x" * (2 << 20)),
        "exif-text": chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(bytes(3 << 20))),
        "profile": chunk(b"iCCP", b"x\0\0" + zlib.compress(rgb_profile(SPACES[4]) + bytes(3 << 20))),
    }
    held = {"profile": SPACES[4].holding(picture())}
    for name, content in large.items():
        yield Case(f"png-large-{name}", png(bytes_of(held.get(name, rgb)), 2, 8, content), truth)
    yield Case("png-bad-crc-header", png(rgb, 2, 8).replace(b"IHDR\0\0\0\x30", b"IHDR\0\0\0\x31"), None, ("PNG",))
    yield Case("png-cut", png(rgb, 2, 8)[:-200], None, ("PNG", "ends before"))
