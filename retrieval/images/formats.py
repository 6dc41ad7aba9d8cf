"""Tell an image's format from its first bytes."""

import struct

_MARKS = (
    ("JPEG", (b"\xff\xd8\xff",)),
    ("PNG", (b"\x89PNG\r\n\x1a\n",)),
    ("GIF", (b"GIF87a", b"GIF89a")),
    ("TIFF", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
)
# Bytes per value of the types 0 to 13 in a TIFF directory.
_TIFF_TYPE_BYTES = (0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4)
_BITMAP_HEADER_BYTES = (12, 40, 52, 56, 64, 108, 124)


def sniff(data: bytes) -> str | None:
    """Return the format that a file's first bytes announce, None if it is not one that is decoded here.

    One of JPEG, PNG, GIF, TIFF, WEBP, AVIF, BMP, DIB; the first 256 bytes of ``data`` are enough.
    """
    for kind, marks in _MARKS:
        if data.startswith(marks):
            return kind
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp":
        # HEIC can have the same major brands as AVIF; the compatible ones behind them tell which it is.
        brands = data[8 : max(12, min(int.from_bytes(data[:4], "big"), 256))]
        return "AVIF" if b"avif" in brands or b"avis" in brands else None
    if data[:2] == b"BM" and _is_bitmap_header(data[14:18]):  # the letters alone begin much text
        return "BMP"
    # A bitmap without the file header has no mark but its size; it has one plane always.
    planes = data[8:10] if data[0:1] == b"\x0c" else data[12:14]
    return "DIB" if _is_bitmap_header(data) and planes == b"\1\0" else None


def ends_early(kind: str, data: bytes) -> bool:
    """Tell whether the structure of a damaged file of this kind points past its last byte.

    For a format that says nothing of its length: whether its end mark is missing.
    """
    if kind == "WEBP":
        return int.from_bytes(data[4:8], "little") + 8 > len(data)
    if kind == "TIFF":
        return _tiff_end(data) > len(data)
    if kind == "AVIF":
        at = 0
        while at + 8 <= len(data):
            size = int.from_bytes(data[at : at + 4], "big")
            if size < 8:  # 0: to the end of the file; 1: a box of gigabytes; others are broken
                return False
            at += size
        return at != len(data)
    mark = {"JPEG": b"\xff\xd9", "PNG": b"IEND", "GIF": b";"}.get(kind, b"")
    return mark not in data.rstrip(b"\0")[-8:]


def _is_bitmap_header(header: bytes) -> bool:
    return int.from_bytes(header[:4], "little") in _BITMAP_HEADER_BYTES


def _tiff_end(data: bytes) -> int:
    """Return where the first directory of a classic TIFF and the values it points to end; 0 for BigTIFF."""
    order = "<" if data[:2] == b"II" else ">"
    if b"+" in data[2:4]:
        return 0
    start = int(struct.unpack(order + "I", data[4:8].ljust(4, b"\0"))[0])
    if start + 2 > len(data):
        return start + 2
    (entries,) = struct.unpack_from(order + "H", data, start)
    end = int(start + 2 + 12 * entries)
    if end > len(data):
        return end
    for index in range(entries):
        _, kind, count, where = struct.unpack_from(order + "HHII", data, start + 2 + 12 * index)
        size = count * _TIFF_TYPE_BYTES[kind if kind < len(_TIFF_TYPE_BYTES) else 0]
        end = max(end, where + size if size > 4 else 0)
    return end


def _webp_size(data: bytes) -> tuple[int, int]:
    """Return (width, height) in px of a WebP's canvas, or (0, 0) where its header is broken."""
    start = data[20:30].ljust(10, b"\0")
    if data[12:16] == b"VP8X":
        return int.from_bytes(start[4:7], "little") + 1, int.from_bytes(start[7:10], "little") + 1
    if data[12:16] == b"VP8L":
        bits = int.from_bytes(start[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack("<HH", start[6:10])
    return (width & 0x3FFF, height & 0x3FFF) if data[12:16] == b"VP8 " else (0, 0)
