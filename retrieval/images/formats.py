"""Recognise an image's format by its first bytes, and read what a WebP's header states."""

import struct

_MARKS = (
    ("JPEG", (b"\xff\xd8\xff",)),
    ("PNG", (b"\x89PNG\r\n\x1a\n",)),
    ("GIF", (b"GIF87a", b"GIF89a")),
    ("TIFF", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
)
_END_MARKS = {"JPEG": b"\xff\xd9", "PNG": b"IEND", "GIF": b";"}
_BITMAP_HEADER_BYTES = (12, 40, 52, 56, 64, 108, 124)


def sniff(data: bytes) -> str | None:
    """Return the format of a file: JPEG, PNG, GIF, TIFF, WEBP, AVIF, BMP or DIB; None for any other.

    The first 256 bytes of ``data`` are enough.
    """
    for kind, marks in _MARKS:
        if data.startswith(marks):
            return kind
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp":
        # HEIC can have the same major brand as AVIF; the compatible brands behind it decide.
        brands = data[8 : max(12, min(int.from_bytes(data[:4], "big"), 256))]
        return "AVIF" if b"avif" in brands or b"avis" in brands else None
    if data[:2] == b"BM" and _is_bitmap_header(data[14:18]):  # text may begin with BM too
        return "BMP"
    # A bitmap without the file header is recognised by its header's size and its one plane.
    planes = data[8:10] if data[0:1] == b"\x0c" else data[12:14]
    return "DIB" if _is_bitmap_header(data) and planes == b"\1\0" else None


def _is_bitmap_header(header: bytes) -> bool:
    return int.from_bytes(header[:4], "little") in _BITMAP_HEADER_BYTES


def is_cut(kind: str, data: bytes) -> bool:
    """Return whether a file ends early by its own account: its end mark is missing, or its header promises more bytes.

    TIFF, AVIF and bitmaps have no such mark, so the answer for them is False.
    """
    if kind == "WEBP":
        return int.from_bytes(data[4:8], "little") + 8 > len(data)
    return kind in _END_MARKS and _END_MARKS[kind] not in data.rstrip(b"\0")[-8:]


def webp_size(data: bytes) -> tuple[int, int]:
    """Return (width, height) in px of a WebP's canvas; (0, 0) if its header is broken."""
    start = data[20:30].ljust(10, b"\0")
    if data[12:16] == b"VP8X":
        return int.from_bytes(start[4:7], "little") + 1, int.from_bytes(start[7:10], "little") + 1
    if data[12:16] == b"VP8L":
        bits = int.from_bytes(start[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack("<HH", start[6:10])
    return (width & 0x3FFF, height & 0x3FFF) if data[12:16] == b"VP8 " else (0, 0)
