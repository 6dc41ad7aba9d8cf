"""Decode images: every image of this project, from a file or an array, comes through this module.

Pillow decodes the files, with rules of ours instead of its defaults. EXIF orientation is applied, colours are converted
to sRGB by the file's profile, transparency is put on white, wide grey is scaled (Pillow clips it to white), and an
animation gives its first frame. CMYK without a profile is converted by formula.

Pillow may issue warnings about odd metadata. The application filters them: changing the filter here would not be safe
while several threads decode.
"""

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import get_args

from PIL import Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile, DibImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from retrieval.errors import ImageError, UsageError
from retrieval.images.discovery import IMAGE_SUFFIXES, Listing, find_images
from retrieval.images.file_bytes import READ_ERROR, read_bytes
from retrieval.images.formats import is_cut, other_format, sniff, webp_size
from retrieval.images.heif import open_avif, open_heic
from retrieval.images.jpeg import LEAST_SHARE, decode_cut, open_jpeg
from retrieval.images.pixels import SIDEWAYS, from_array, to_rgb, turn_of
from retrieval.images.png import loaded_png, open_png
from retrieval.images.preprocessing import resize_and_crop, resize_square
from retrieval.images.probe import pixel_probe
from retrieval.images.room import Room, decoding_bytes
from retrieval.images.tiff import open_tiff
from retrieval.settings import MAX_PIXELS
from retrieval.types import AlphaRule, ColourRule

__all__ = [
    "IMAGE_SUFFIXES",
    "READ_ERROR",
    "AlphaRule",
    "DecodeRules",
    "FileFacts",
    "Listing",
    "decode_bytes",
    "find_images",
    "from_array",
    "read_bytes",
    "read_image",
    "resize_and_crop",
    "resize_square",
    "to_rgb",
]

# Files are opened by class, because Image.open has a limit on pixels of its own, which would warn below ours and refuse
# a higher one. A phone's MPO is a JPEG with more pictures behind it, so the JPEG reader gives the first picture.
_READERS: Mapping[str, Callable[[bytes], ImageFile.ImageFile]] = {
    "PNG": open_png,
    "WEBP": lambda data: WebPImageFile(BytesIO(data)),
    "AVIF": open_avif,
    "GIF": lambda data: GifImageFile(BytesIO(data)),
    "TIFF": open_tiff,
    "BMP": lambda data: BmpImageFile(BytesIO(data)),
    "DIB": lambda data: DibImageFile(BytesIO(data)),
}
_CODEC_ERRORS = {  # Pillow's numbers
    "-1": "its image data does not fit its size",
    "-2": "its image data is damaged",
    "-3": "its image data is damaged",
    "-8": "its image data has an unknown arrangement",
    "-9": "its image data asks for more memory than there is",
}
_BROKEN_STREAMS = ("broken data stream", "unrecognized data stream")


@dataclass(frozen=True, slots=True)
class DecodeRules:
    """How files become pixels; a rule out of range is a UsageError.

    ``draft`` is a size in px. A JPEG is then decoded at the smallest of the scales 1/1, 1/2, 1/4 and 1/8 that keeps its
    short side at twice that size or more; None decodes in full. ``part_px`` gives the short side of a part of the full,
    upright picture of (width, height); the scale then keeps that one at twice the size. ``max_pixels`` limits width
    times height of the decoded image, before any memory is taken for it.
    """

    alpha: AlphaRule = "white"
    draft: int | None = None
    max_pixels: int = MAX_PIXELS
    colour: ColourRule = "srgb"
    part_px: Callable[[tuple[int, int]], float] | None = None

    def __post_init__(self) -> None:
        for name, value, known in (("alpha", self.alpha, AlphaRule), ("colour", self.colour, ColourRule)):
            if value not in get_args(known):
                raise UsageError(f"{name} must be one of {', '.join(get_args(known))}, not {value!r}")
        if self.draft is not None and self.draft < 1:
            raise UsageError(f"draft must be a size of 1 px or more, not {self.draft}")
        if self.max_pixels < 1:
            raise UsageError(f"max_pixels must be 1 or more, not {self.max_pixels}")

    def draft_of(self, size: tuple[int, int]) -> int | None:
        """Return the draft of an upright picture of (width, height) px."""
        if self.draft is None or self.part_px is None:
            return self.draft
        return math.ceil(self.draft * min(size) / max(1.0, self.part_px(size)))

    def fingerprint(self) -> dict[str, str | int | None]:
        """Return what changes pixels of whole images, as JSON values: the rules, and a probe of the decoder."""
        rules: dict[str, str | int | None] = {"decoder": "pillow", "alpha": self.alpha, "draft": self.draft}
        if self.colour != "ignored":  # the rule of the time before there was a choice
            rules["colour"] = self.colour
        return {**rules, "probe": pixel_probe()}


@dataclass(frozen=True, slots=True)
class FileFacts:
    """The facts about a file that was read: ``size`` in bytes, ``sha256`` in hex digits.

    ``width`` and ``height`` are in px, for the full image (never a draft) with its EXIF orientation applied.
    ``partial`` says which part of a cut file was used, as a clause; it is empty for a whole one.
    """

    path: Path
    size: int
    mtime_ns: int
    sha256: str
    width: int
    height: int
    partial: str = ""
    ctime_ns: int = -1  # when data, name or rights last changed; -1 where the system tells no such time


@dataclass(frozen=True, slots=True)
class _Decoded:
    """An upright RGB image; the other fields as in :class:`FileFacts`."""

    image: Image.Image
    size: tuple[int, int]
    partial: str = ""


def read_image(path: Path, rules: DecodeRules, room: Room | None = None) -> tuple[Image.Image, FileFacts]:
    """Read a file once, and return its upright RGB image with the facts about these bytes.

    ``room`` is waited for before memory is taken; without one nothing is waited for.

    Raises:
        ImageError: the file can't be read or decoded, whatever it holds.
        MemoryError: the image does not fit.
    """
    data, (_, mtime_ns, ctime_ns) = read_bytes(path, room.take_file if room else None)
    found = _decode(data, str(path), rules, room)
    digest = hashlib.sha256(data).hexdigest()
    return found.image, FileFacts(path, len(data), mtime_ns, digest, *found.size, found.partial, ctime_ns)


def decode_bytes(data: bytes, name: str, rules: DecodeRules) -> tuple[Image.Image, tuple[int, int]]:
    """Return the upright RGB image in a file's bytes, and the (width, height) in px of the full image.

    Raises:
        ImageError: the bytes can't be decoded, whatever they are; the message calls them ``name``.
        MemoryError: the image does not fit.
    """
    found = _decode(data, name, rules)
    return found.image, found.size


def _decode(data: bytes, name: str, rules: DecodeRules, room: Room | None = None) -> _Decoded:
    if not data:
        raise ImageError("empty", name, "is an empty file")
    kind = sniff(data)
    if kind is None:
        raise _not_read(data, name)
    try:
        opened, full = _open(kind, data, name, rules)
        if room is not None:
            room.take_pixels(decoding_bytes(kind, opened, full), name)
        image, partial = _load(kind, opened, data, rules)
        size = full[::-1] if turn_of(image) in SIDEWAYS else full
        return _Decoded(to_rgb(image, rules.alpha, rules.colour), size, partial)
    except (ImageError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError("too_large", name, "has more pixels than Pillow agrees to decode") from error
    except Exception as error:  # Pillow's readers raise nearly anything when a file is damaged.
        raise _damage(kind, data, name, error) from error


def _open(kind: str, data: bytes, name: str, rules: DecodeRules) -> tuple[ImageFile.ImageFile, tuple[int, int]]:
    """Return an opened image of the size that it will be decoded at, and its full size."""
    if kind == "WEBP":  # Pillow's reader takes memory for the canvas when it opens the file.
        _check_size(webp_size(data), name, rules)
    if kind == "JPEG":
        opened, full = open_jpeg(data, rules.draft_of)
        image: ImageFile.ImageFile = opened
    else:
        image = open_heic(data, name) if kind == "HEIC" else _READERS[kind](data)
        full = image.size
    _check_size(image.size, name, rules)
    return image, full


def _load(kind: str, image: ImageFile.ImageFile, data: bytes, rules: DecodeRules) -> tuple[Image.Image, str]:
    """Decode an opened image; return it and, for a JPEG that ends early, the clause that says so."""
    if isinstance(image, PngImageFile):
        return loaded_png(image, data), ""
    try:
        image.load()
    except OSError as error:
        if kind != "JPEG" or "truncat" not in str(error):
            raise
        cut, share = decode_cut(data, rules.draft_of)
        if share < LEAST_SHARE:
            raise
        return cut, "" if share == 1 and not cut.info.get("progressive") else _describe_cut(cut, share)
    return image, ""


def _describe_cut(image: Image.Image, share: float) -> str:
    if image.info.get("progressive"):
        return "ends early: it was used with the detail that it has"
    return f"ends early: the upper {int(100 * share)} % of it were used, and the rest is grey"


def _check_size(size: tuple[int, int], name: str, rules: DecodeRules) -> None:
    if size[0] * size[1] > rules.max_pixels:
        shown = f"{size[0]} x {size[1]} px"
        raise ImageError("too_large", name, f"is {shown}, above the limit of {rules.max_pixels} px in all")


def _not_read(data: bytes, name: str) -> ImageError:
    other = other_format(data)
    if other is None:
        return ImageError("not_an_image", name, "does not hold an image of a known format, whatever its name says")
    return ImageError("unsupported", name, f"is {other}, which is not one of the formats that are read")


def _damage(kind: str, data: bytes, name: str, error: Exception) -> ImageError:
    """Return the reason why Pillow could not decode a file.

    "truncated" needs the word of Pillow or of the file itself. Any other damage is "unreadable", even in a file that
    was cut: some readers can't tell the two apart.
    """
    if "truncat" in str(error).lower() or is_cut(kind, data):
        return ImageError("truncated", name, f"ends before the image data of this {kind} does")
    return ImageError("unreadable", name, f"can't be decoded as {kind}: {_cause(error)}")


def _cause(error: Exception) -> str:
    """Return Pillow's words for an error, or better ones where they mean nothing to people."""
    said = " ".join(str(error).split())[:200]
    if said.startswith("decoder error"):
        return _CODEC_ERRORS.get(said.split()[-1].strip("."), "its image data is damaged")
    if said.startswith(_BROKEN_STREAMS):
        return "its image data is damaged"
    return said or f"its structure is damaged ({type(error).__name__})"
