"""Open PNG files as browsers do: their colour space, their transparent colour, and chunks that may be damaged.

Pillow refuses a file for a wrong checksum or a large text in a chunk that no pixel depends on. Only the chunks that
pixels or their orientation depend on are passed to it.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from retrieval.images.icc import SRGB_PRIMARIES, Chromaticities, coded_profile, matrix_profile

_SIGNATURE = 8  # bytes
_MAX_PROFILE_BYTES = 2**24
_MAX_TEXT_BYTES = 2**20  # Pillow's own limit
_GREY, _RGB = 0, 2  # colour types
_COLOUR_CHUNKS = (b"cICP", b"iCCP", b"sRGB", b"gAMA", b"cHRM")
_ORIENTING_TEXTS = (b"Raw profile type exif\0", b"Raw profile type APP1\0", b"XML:com.adobe.xmp\0")
_FULL_SCALE = {1: 255, 2: 85, 4: 17, 8: 1, 16: 1}  # by bits a sample: what Pillow multiplies grey samples by


@dataclass(frozen=True)
class _Chunk:
    kind: bytes
    whole: memoryview  # with length and checksum
    content: memoryview
    intact: bool  # ends inside the file, with the right checksum if it is ancillary


def open_png(data: bytes) -> PngImageFile:
    """Open a PNG; ``info`` gets the ICC profile of its colour space, by the precedence cICP, iCCP, sRGB, gAMA.

    Raises:
        Exception: whatever Pillow raises for a damaged file.
    """
    kept = [memoryview(data)[:_SIGNATURE]]
    colour: dict[bytes, bytes] = {}
    clear = b""
    for chunk in _chunks(data):
        if chunk.kind in _COLOUR_CHUNKS and chunk.intact:
            colour.setdefault(chunk.kind, bytes(chunk.content))
        elif _matters(chunk):
            kept.append(chunk.whole)
            clear = bytes(chunk.content) if chunk.kind == b"tRNS" else clear
    image = PngImageFile(BytesIO(b"".join(kept)))
    profile = _profile_of(colour)
    if profile is not None:
        image.info["icc_profile"] = profile
    _correct_transparency(image, data, clear)
    return image


def loaded_png(image: PngImageFile, data: bytes) -> Image.Image:
    """Decode the image that :func:`open_png` opened; a 16-bit transparent colour becomes an alpha channel."""
    colour = image.info.pop("wide_transparency", None)
    image.load()
    if colour is None:
        return image
    # Pillow keeps the high byte of each sample. The low bytes, read as if the file were little-endian, decide as well.
    low = open_png(data)
    low.info.clear()
    low.tile = [tile._replace(args="RGB;16L") for tile in low.tile]
    low.load()
    high_bytes, low_bytes = np.asarray(image), np.asarray(low)
    clear = np.ones(high_bytes.shape[:2], dtype=bool)
    for channel, value in enumerate(colour):
        clear &= (high_bytes[..., channel] == value >> 8) & (low_bytes[..., channel] == value & 255)
    image.putalpha(Image.fromarray(np.where(clear, 0, 255).astype(np.uint8)))
    return image


def _correct_transparency(image: PngImageFile, data: bytes, clear: bytes) -> None:
    """Scale the transparent value of a grey image as its samples are scaled, and set 16-bit colours apart."""
    depth, colour_type = data[24], data[25]
    if colour_type == _GREY and depth in (2, 4, 8) and len(clear) >= 2:
        value = struct.unpack(">H", clear[:2])[0] & (2**depth - 1)
        image.info["transparency"] = value * _FULL_SCALE[depth]
    elif colour_type == _RGB and len(clear) >= 6:
        colour = struct.unpack(">HHH", clear[:6])
        image.info.pop("transparency", None)
        if depth == 16:
            image.info["wide_transparency"] = colour
        else:
            image.info["transparency"] = tuple(value & 255 for value in colour)


def _chunks(data: bytes) -> Iterator[_Chunk]:
    """Yield every chunk, up to IEND or to the end of the file; the last one may be cut."""
    view, at = memoryview(data), _SIGNATURE
    while at + 8 <= len(data):
        length, kind = int.from_bytes(view[at : at + 4], "big"), bytes(view[at + 4 : at + 8])
        end = at + 12 + length
        content = view[at + 8 : end - 4]
        intact = end <= len(data)
        if intact and _is_ancillary(kind):
            intact = zlib.crc32(view[at + 4 : end - 4]) == int.from_bytes(view[end - 4 : end], "big")
        yield _Chunk(kind, view[at:end], content, intact)
        if kind == b"IEND":
            return
        at = end


def _is_ancillary(kind: bytes) -> bool:
    return kind.isalpha() and kind[:1].islower()


def _matters(chunk: _Chunk) -> bool:
    """Whether pixels or their orientation depend on a chunk; damaged critical chunks are for Pillow to refuse."""
    if not _is_ancillary(chunk.kind):
        return True
    if not chunk.intact:
        return False
    if chunk.kind in (b"tEXt", b"zTXt", b"iTXt"):
        return bytes(chunk.content[:32]).startswith(_ORIENTING_TEXTS) and _expands_little(chunk)
    return chunk.kind in (b"tRNS", b"eXIf")


def _expands_little(chunk: _Chunk) -> bool:
    """Whether a text stays below Pillow's limit when it is expanded."""
    content = bytes(chunk.content)
    start = content.index(b"\0") + 1
    if chunk.kind == b"zTXt":
        return _expanded(content[start + 1 :], _MAX_TEXT_BYTES) is not None
    compressed = chunk.kind == b"iTXt" and content[start : start + 1] != b"\0"
    return not compressed and len(content) < _MAX_TEXT_BYTES


def _expanded(data: bytes, limit: int) -> bytes | None:
    """Return the zlib stream expanded; None if it is damaged, cut, or longer than ``limit`` bytes."""
    stream = zlib.decompressobj()
    try:
        expanded = stream.decompress(data, limit)
    except zlib.error:
        return None
    return expanded if stream.eof else None


def _profile_of(colour: dict[bytes, bytes]) -> bytes | None:
    """Return the ICC profile of a PNG's colour chunks; None for sRGB, which is also the default."""
    coded = colour.get(b"cICP", b"")
    if len(coded) == 4 and coded[2:] == b"\0\1" and coded[1] not in (16, 18):  # not PQ, not HLG
        return coded_profile(coded[0], coded[1])
    name, _, packed = colour.get(b"iCCP", b"").partition(b"\0")
    if name and packed[:1] == b"\0" and (profile := _expanded(packed[1:], _MAX_PROFILE_BYTES)):
        return profile
    gamma = colour.get(b"gAMA", b"")
    if b"sRGB" in colour or len(gamma) != 4 or not (stated := int.from_bytes(gamma, "big")):
        return None
    return matrix_profile(_chromaticities(colour.get(b"cHRM", b"")), 100_000 / stated)


def _chromaticities(chunk: bytes) -> Chromaticities:
    """Return the white point and primaries of cHRM; those of sRGB if the chunk is missing."""
    if len(chunk) != 32:
        return SRGB_PRIMARIES
    wx, wy, rx, ry, gx, gy, bx, by = (number / 100_000 for number in struct.unpack(">8I", chunk))
    return (wx, wy), (rx, ry), (gx, gy), (bx, by)
