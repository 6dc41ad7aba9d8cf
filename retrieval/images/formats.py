"""Recognise a file's format by its first bytes, and read what a WebP's header states."""

import struct

_MARKS = (
    ("JPEG", (b"\xff\xd8\xff",)),
    ("PNG", (b"\x89PNG\r\n\x1a\n",)),
    ("GIF", (b"GIF87a", b"GIF89a")),
    ("TIFF", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
)
_END_MARKS = {"JPEG": b"\xff\xd9", "PNG": b"IEND", "GIF": b";"}
_BITMAP_HEADER_BYTES = (12, 40, 52, 56, 64, 108, 124)
_AVIF_BRANDS = (b"avif", b"avis")
_HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs")
_BRANDS_OF_VIDEO = (b"isom", b"iso2", b"mp41", b"mp42", b"qt  ", b"M4V ", b"avc1", b"3gp")

# Formats that are recognised so that a message can name them; no reader of this project opens them.
_OTHERS = (
    (b"\xff\x0a", "a JPEG XL image"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL image"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 image"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (b"8BPS", "a Photoshop document (PSD)"),
    (b"FUJIFILMCCD-RAW", "a camera's raw file (Fujifilm RAF)"),
    (b"II*\0\x10\0\0\0CR", "a camera's raw file (Canon CR2)"),
    (b"IIRO", "a camera's raw file (Olympus ORF)"),
    (b"IIRS", "a camera's raw file (Olympus ORF)"),
    (b"IIU\0", "a camera's raw file (Panasonic RW2)"),
    (b"FOVb", "a camera's raw file (Sigma X3F)"),
    (b"\0MRM", "a camera's raw file (Minolta MRW)"),
    (b"II\xbc\1", "a JPEG XR image"),
    (b"\x76\x2f\x31\x01", "an OpenEXR image"),
    (b"#?RADIANCE", "a Radiance HDR image"),
    (b"#?RGBE", "a Radiance HDR image"),
    (b"DDS ", "a DDS texture"),
    (b"qoif", "a QOI image"),
    (b"BPG\xfb", "a BPG image"),
    (b"gimp xcf", "a GIMP document (XCF)"),
    (b"\0\0\1\0", "an icon (ICO)"),
    (b"\0\0\2\0", "a cursor (CUR)"),
    (b"icns", "an icon (ICNS)"),
    (b"AT&TFORM", "a DjVu document"),
    (b"SIMPLE  =", "a FITS image"),
    (b"%PDF-", "a PDF document"),
    (b"%!PS", "a PostScript document"),
    (b"\xc5\xd0\xd3\xc6", "a PostScript document"),
    (b"PK\3\4", "a ZIP archive"),
    (b"Rar!", "a RAR archive"),
    (b"7z\xbc\xaf", "a 7-Zip archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x1a\x45\xdf\xa3", "a video (Matroska or WebM)"),
    (b"ID3", "a sound file (MP3)"),
    (b"OggS", "a sound or video file (Ogg)"),
    (b"version https://git-lfs", "a pointer of Git LFS and not the file itself"),
)
_TEXTS = ((b"<svg", "an SVG drawing"), (b"<!doctype html", "an HTML page"), (b"<html", "an HTML page"))
_NETPBM = (b"P1", b"P2", b"P3", b"P4", b"P5", b"P6", b"P7", b"PF", b"Pf")


def sniff(data: bytes) -> str | None:
    """Return the format of a file: JPEG, PNG, GIF, TIFF, WEBP, AVIF, HEIC, BMP or DIB; None for any other.

    The first 256 bytes of ``data`` are enough.
    """
    if data.startswith(b"II*\0\x10\0\0\0CR"):
        return None  # Canon's raw file is a TIFF by its first bytes, and its first picture is a small preview
    for kind, marks in _MARKS:
        if data.startswith(marks):
            return kind
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp":
        # HEIC can have the same major brand as AVIF; the compatible brands behind it decide.
        brands = _brands(data)
        if any(brand in brands for brand in _AVIF_BRANDS):
            return "AVIF"
        return "HEIC" if any(brand in brands for brand in _HEIC_BRANDS) else None
    if data[:2] == b"BM" and _is_bitmap_header(data[14:18]):  # text may begin with BM too
        return "BMP"
    # A bitmap without the file header is recognised by its header's size and its one plane.
    planes = data[8:10] if data[0:1] == b"\x0c" else data[12:14]
    return "DIB" if _is_bitmap_header(data) and planes == b"\1\0" else None


def other_format(data: bytes) -> str | None:
    """Return a format that is recognised and never read, in words such as ``a JPEG XL image``; None for any other."""
    for mark, name in _OTHERS:
        if data.startswith(mark):
            return name
    if data[4:8] == b"ftyp":
        return _name_of_brands(_brands(data))
    if data[:4] == b"RIFF" and data[8:12] in (b"WAVE", b"AVI "):
        return "a sound file (WAV)" if data[8:12] == b"WAVE" else "a video (AVI)"
    if data[:2] in _NETPBM and data[2:3].isspace():
        return "a Netpbm image (PPM, PGM or PBM)"
    if data[128:132] == b"DICM":
        return "a DICOM image"
    start = data[:256].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for mark, name in _TEXTS:
        if start.startswith(mark) or (start.startswith(b"<?xml") and mark in start):
            return name
    return None


def _brands(data: bytes) -> bytes:
    return data[8 : max(12, min(int.from_bytes(data[:4], "big"), 256))]


def _name_of_brands(brands: bytes) -> str | None:
    if brands.startswith(b"crx "):
        return "a camera's raw file (Canon CR3)"
    if b"mif1" in brands or b"msf1" in brands:
        return "an image in the HEIF container with a codec other than HEVC and AV1"
    return "a video (MP4 or QuickTime)" if any(brand in brands for brand in _BRANDS_OF_VIDEO) else None


def _is_bitmap_header(header: bytes) -> bool:
    return int.from_bytes(header[:4], "little") in _BITMAP_HEADER_BYTES


def is_cut(kind: str, data: bytes) -> bool:
    """Return whether a file ends early by its own account: its end mark is missing, or its header promises more bytes.

    TIFF, AVIF, HEIC and bitmaps have no such mark, so the answer for them is False.
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
