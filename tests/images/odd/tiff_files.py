"""TIFF files written by hand: grey of every width, sign and byte order, and kinds that are refused by name."""

import struct
from collections.abc import Iterator

import numpy as np

from tests.images.odd.picture import Case, as_rgb, bytes_of, grey, picture

_FORMS = {"uint": 1, "int": 2, "float": 3}
_ROWS_A_STRIP = 12


def tiff(
    strips: list[bytes], size: tuple[int, int], bits: int, channels: int, photometric: int, form: int, order: str
) -> bytes:
    """Return an uncompressed TIFF; ``order`` is < or >."""
    width, height = size
    short, long = "H", "I"
    entries: list[tuple[int, str, list[int]]] = [
        (256, short, [width]),
        (257, short, [height]),
        (258, short, [bits] * channels),
        (259, short, [1]),
        (262, short, [photometric]),
        (273, long, []),
        (277, short, [channels]),
        (278, short, [_ROWS_A_STRIP]),
        (279, long, [len(strip) for strip in strips]),
        (339, short, [form] * channels),
    ]
    start = 8 + sum(map(len, strips))
    offsets, at = [], 8
    for strip in strips:
        offsets.append(at)
        at += len(strip)
    entries[5] = (273, long, offsets)
    table, spare = struct.pack(order + "H", len(entries)), b""
    spare_at = start + 2 + 12 * len(entries) + 4
    for tag, kind, values in entries:
        packed = struct.pack(order + kind * len(values), *values)
        if len(packed) > 4:
            content = struct.pack(order + "I", spare_at + len(spare))
            spare += packed + b"\0" * (len(packed) % 2)
        else:
            content = packed.ljust(4, b"\0")
        table += struct.pack(order + "HHI", tag, {"H": 3, "I": 4}[kind], len(values)) + content
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, start)
    return head + b"".join(strips) + table + bytes(4) + spare


def tiff_of(samples: np.ndarray, bits: int, photometric: int, form: str, order: str) -> bytes:
    """Return a TIFF of samples [H, W] or [H, W, channels], whose dtype has the bits (12 are packed from 16)."""
    channels = samples.shape[2] if samples.ndim == 3 else 1
    rows = [samples[top : top + _ROWS_A_STRIP] for top in range(0, len(samples), _ROWS_A_STRIP)]
    strips = [_packed12(part) if bits == 12 else part.astype(part.dtype.newbyteorder(order)).tobytes() for part in rows]
    return tiff(strips, (samples.shape[1], samples.shape[0]), bits, channels, photometric, _FORMS[form], order)


def _packed12(samples: np.ndarray) -> bytes:
    bits = (samples.astype(int)[..., None] >> np.arange(11, -1, -1)) & 1
    return np.packbits(bits.reshape(len(samples), -1).astype(np.uint8), axis=1).tobytes()


def grey_integers() -> Iterator[Case]:
    """Unsigned and signed grey, black or white at zero, in both byte orders."""
    share = grey() / 255
    for order in "<>":
        for photometric, shown in ((1, share), (0, 1 - share)):
            tail = f"{'II' if order == '<' else 'MM'}-{'black' if photometric else 'white'}-is-zero"
            for bits in (8, 12, 16, 32):
                dtype = {8: np.uint8, 12: np.uint16, 16: np.uint16, 32: np.uint32}[bits]
                samples = np.rint(share * (2**bits - 1)).astype(dtype)
                yield _case(f"tiff-uint{bits}-{tail}", tiff_of(samples, bits, photometric, "uint", order), shown)
            for bits in (8, 16, 32):
                dtype = {8: np.int8, 16: np.int16, 32: np.int32}[bits]
                samples = np.rint(share * (2 ** (bits - 1) - 1)).astype(dtype)
                yield _case(f"tiff-int{bits}-{tail}", tiff_of(samples, bits, photometric, "int", order), shown)
    counts = np.rint(share * 65535).astype(np.uint32)
    yield _case("tiff-uint32-of-16-bits", tiff_of(counts, 32, 1, "uint", "<"), share)
    signed = np.rint(share * 32767).astype(np.int16)
    signed[0] = -5
    yield _case("tiff-int16-negative", tiff_of(signed, 16, 1, "int", "<"), np.where(signed < 0, 0, share))


def _case(name: str, data: bytes, share: np.ndarray) -> Case:
    """A case that shows grey 0..1, or is refused as a TIFF with the width of its samples."""
    return Case(name, data, as_rgb(255 * share))


def grey_floats() -> Iterator[Case]:
    """Floating-point grey in several ranges, with values far outside."""
    share = grey() / 255
    for order in "<>":
        for photometric, shown in ((1, share), (0, 1 - share)):
            tail = f"{'II' if order == '<' else 'MM'}-{'black' if photometric else 'white'}-is-zero"
            for white in (1, 255, 65535):
                data = tiff_of((share * white).astype(np.float32), 32, photometric, "float", order)
                yield _case(f"tiff-float-{white}-{tail}", data, shown)
    for name, value, seen in (
        ("1.01", 1.01, 1),
        ("1e6", 1e6, 1),
        ("nan", np.nan, 0),
        ("-inf", -np.inf, 0),
        ("inf", np.inf, 1),
    ):
        odd, shown = (share * 1.0).astype(np.float32), share.copy()
        odd[3, 5], shown[3, 5] = value, seen
        yield _case(f"tiff-float-one-{name}", tiff_of(odd, 32, 1, "float", "<"), shown)


def colours() -> Iterator[Case]:
    """RGB and CMYK of 8 and 16 bits, and widths that are refused by name."""
    inks = np.concatenate([255 - picture(), np.zeros((32, 48, 1))], axis=2)
    for order in "<>":
        for bits, dtype in ((8, np.uint8), (16, np.uint16)):
            top = 2**bits - 1
            name = f"{bits}-{'II' if order == '<' else 'MM'}"
            yield Case(
                f"tiff-rgb{name}",
                tiff_of(np.rint(picture() / 255 * top).astype(dtype), bits, 2, "uint", order),
                picture(),
            )
            yield Case(
                f"tiff-cmyk{name}", tiff_of(np.rint(inks / 255 * top).astype(dtype), bits, 5, "uint", order), picture()
            )
    floats = picture() / 255
    for bits, form, dtype in ((32, "float", np.float32), (64, "float", np.float64), (32, "uint", np.uint32)):
        samples = (floats * (1 if form == "float" else 2**32 - 1)).astype(dtype)
        yield Case(
            f"tiff-rgb-{form}{bits}", tiff_of(samples, bits, 2, form, "<"), None, ("TIFF", "RGB", f"{bits} bits")
        )
    for bits, form, dtype in ((64, "float", np.float64), (16, "float", np.float16), (64, "uint", np.uint64)):
        samples = (grey() / 255 * (1 if form == "float" else 2**60)).astype(dtype)
        yield Case(
            f"tiff-grey-{form}{bits}", tiff_of(samples, bits, 1, form, "<"), None, ("TIFF", "grey", f"{bits} bits")
        )
    data = tiff_of(bytes_of(picture()), 8, 2, "uint", "<")
    yield Case("tiff-cut", data[:40], None, ("TIFF",))
