"""Decode images: every image of this project, from a file or an array, comes through this module.

Pillow decodes the files, with rules of ours instead of its defaults. EXIF orientation is applied, transparency is put
on white, 16-bit grey is scaled (Pillow clips it to white), and an animation gives its first frame. ICC profiles are
ignored, so wide-gamut colours are read as sRGB; CMYK is converted by formula.

Pillow may issue warnings about odd metadata. The application filters them: changing the filter here would not be safe
while several threads decode.
"""

import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile, DibImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from retrieval.errors import ImageError, UsageError
from retrieval.images.discovery import IMAGE_SUFFIXES, FileState, Listing, find_images, state_in
from retrieval.images.formats import is_cut, sniff, webp_size
from retrieval.images.preprocessing import resize_and_crop, resize_square
from retrieval.types import AlphaRule

# A larger file is not read: no known format needs more bytes for an image of a sensible size.
_MAX_FILE_BYTES = 2**32

READ_ERROR = "can't be read: "  # begins the detail of a file that the system failed to read; it may be there later


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
    "read_image",
    "resize_and_crop",
    "resize_square",
    "to_rgb",
]

# Files are opened by class, because Image.open has a limit on pixels of its own, which would warn below ours and refuse
# a higher one. A phone's MPO is a JPEG with more pictures behind it, so the JPEG reader gives the first picture.
_READERS: Mapping[str, type[ImageFile.ImageFile]] = {
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "WEBP": WebPImageFile,
    "AVIF": AvifImageFile,
    "GIF": GifImageFile,
    "TIFF": TiffImageFile,
    "BMP": BmpImageFile,
    "DIB": DibImageFile,
}
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = frozenset(_TURNS[orientation] for orientation in (5, 6, 7, 8))


@dataclass(frozen=True, slots=True)
class DecodeRules:
    """How files become pixels; a rule out of range is a UsageError.

    ``draft`` is a size in px. A JPEG is then decoded at the smallest of the scales 1/1, 1/2, 1/4 and 1/8 that keeps its
    short side at twice that size or more; None decodes in full. ``max_pixels`` limits width times height of the full
    image, before any memory is taken for it.
    """

    alpha: AlphaRule = "white"
    draft: int | None = None
    max_pixels: int = 178_956_970

    def __post_init__(self) -> None:
        if self.alpha not in get_args(AlphaRule):
            raise UsageError(f"alpha must be one of {', '.join(get_args(AlphaRule))}, not {self.alpha!r}")
        if self.draft is not None and self.draft < 1:
            raise UsageError(f"draft must be a size of 1 px or more, not {self.draft}")
        if self.max_pixels < 1:
            raise UsageError(f"max_pixels must be 1 or more, not {self.max_pixels}")

    def fingerprint(self) -> dict[str, str | int | None]:
        """Return the rules that change pixels, as JSON values; the limit on pixels does not."""
        return {"decoder": "pillow", "alpha": self.alpha, "draft": self.draft}


@dataclass(frozen=True, slots=True)
class FileFacts:
    """The facts about a file that was read: ``size`` in bytes, ``sha256`` in hex digits.

    ``width`` and ``height`` are in px, for the full image (never a draft) with its EXIF orientation applied.
    """

    path: Path
    size: int
    mtime_ns: int
    sha256: str
    width: int
    height: int
    ctime_ns: int = -1  # when data, name or rights last changed; -1 where the system tells no such time


def read_image(path: Path, rules: DecodeRules) -> tuple[Image.Image, FileFacts]:
    """Read a file once, and return its upright RGB image with the facts about these bytes.

    Raises:
        ImageError: the file can't be read or decoded, whatever it holds.
        MemoryError: the image does not fit.
    """
    data, (_, mtime_ns, ctime_ns) = read_bytes(path)
    image, (width, height) = decode_bytes(data, str(path), rules)
    return image, FileFacts(path, len(data), mtime_ns, hashlib.sha256(data).hexdigest(), width, height, ctime_ns)


def decode_bytes(data: bytes, name: str, rules: DecodeRules) -> tuple[Image.Image, tuple[int, int]]:
    """Return the upright RGB image in a file's bytes, and the (width, height) in px of the full image.

    Raises:
        ImageError: the bytes can't be decoded, whatever they are; the message calls them ``name``.
        MemoryError: the image does not fit.
    """
    if not data:
        raise ImageError("empty", name, "is an empty file")
    kind = sniff(data)
    if kind is None:
        raise ImageError("not_an_image", name, "does not hold an image of a known format, whatever its name says")
    try:
        if kind == "WEBP":  # Pillow's reader takes memory for the canvas when it opens the file.
            _check_size(webp_size(data), name, rules)
        image = _READERS[kind](BytesIO(data))
        width, height = _check_size(image.size, name, rules)
        if rules.draft is not None and kind == "JPEG":
            image.draft(None, (2 * rules.draft, 2 * rules.draft))
        image.load()
        if _turn(image) in _SIDEWAYS:
            width, height = height, width
        return to_rgb(image, rules.alpha), (width, height)
    except (ImageError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError("too_large", name, "has more pixels than Pillow agrees to decode") from error
    except Exception as error:  # Pillow's readers raise nearly anything when a file is damaged.
        raise _damage(kind, data, name, error) from error


def to_rgb(image: Image.Image, alpha: AlphaRule) -> Image.Image:
    """Return the image as 8-bit RGB, turned upright as its EXIF orientation says.

    16-bit grey (modes I;16* and I, which is clipped to that range) is divided by 257 and rounded. Mode F is read as
    0..1 if no value exceeds 1, else it is clipped to 0..255; NaN is black. An ICC profile is ignored. ``alpha="drop"``
    is Pillow's ``convert("RGB")``, which shows the colours under transparency. The result is a new image of bare
    pixels; a second call with it changes nothing.
    """
    image.load()
    turn = _turn(image)
    if image.mode.startswith("I") or image.mode == "F":
        rgb = _wide_grey(image, alpha).convert("RGB")
    else:
        rgb = _narrow_to_rgb(image, alpha)
    rgb.info.clear()
    return rgb if turn is None else rgb.transpose(turn)


def from_array(array: NDArray[Any], name: str) -> Image.Image:
    """Return the RGB image in a uint8 array [H, W, 3]; anything else is a UsageError that calls it ``name``."""
    if not isinstance(array, np.ndarray):
        raise UsageError(f"{name}: a uint8 array [H, W, 3] is needed, not a {type(array).__name__}")
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        got = f"{array.dtype} {list(array.shape)}"
        raise UsageError(f"{name}: a uint8 array [H, W, 3] is needed, not {got}")
    return Image.fromarray(np.ascontiguousarray(array))


def _turn(image: Image.Image) -> Image.Transpose | None:
    """Return the turn that makes a loaded image upright; broken metadata does not reject its pixels."""
    try:
        return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except MemoryError:
        raise
    except Exception:
        return None


def _wide_grey(image: Image.Image, alpha: AlphaRule) -> Image.Image:
    """Scale the modes I;16*, I and F to L; ``white`` turns the transparent value of a 16-bit PNG white."""
    values = np.asarray(image)
    if image.mode == "F":
        values = np.clip(np.nan_to_num(values, nan=0.0, posinf=255.0, neginf=0.0), 0.0, 255.0)
        return Image.fromarray(np.rint(values * (255.0 if values.max() <= 1.0 else 1.0)).astype(np.uint8))
    scaled = ((np.arange(65536) + 128) // 257).astype(np.uint8)
    clear = image.info.get("transparency")
    if alpha == "white" and isinstance(clear, int) and 0 <= clear < 65536:
        scaled[clear] = 255
    return Image.fromarray(scaled[np.clip(values, 0, 65535)])


def _narrow_to_rgb(image: Image.Image, alpha: AlphaRule) -> Image.Image:
    if image.mode == "La":  # Pillow can't convert La directly.
        image = image.convert("LA")
    if alpha == "white" and image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.copy()  # convert() would warn about the transparency that is dropped here
        del image.info["transparency"]
    return image.convert("RGB")


def _check_size(size: tuple[int, int], name: str, rules: DecodeRules) -> tuple[int, int]:
    if size[0] * size[1] > rules.max_pixels:
        shown = f"{size[0]} x {size[1]} px"
        raise ImageError("too_large", name, f"is {shown}, above the limit of {rules.max_pixels} px in all")
    return size


def _damage(kind: str, data: bytes, name: str, error: Exception) -> ImageError:
    """Return the reason why Pillow could not decode a file.

    "truncated" needs the word of Pillow or of the file itself. Any other damage is "unreadable", even in a file that
    was cut: some readers can't tell the two apart.
    """
    if "truncat" in str(error).lower() or is_cut(kind, data):
        return ImageError("truncated", name, "ends before its image data does")
    cause = " ".join(str(error).split())[:200] or type(error).__name__
    return ImageError("unreadable", name, f"can't be decoded as {kind}: {cause}")


def read_bytes(path: Path) -> tuple[bytes, FileState]:
    """Return the bytes of a regular file and its state when it was opened.

    It never waits for a FIFO.

    Raises:
        ImageError: bad_name, permission, vanished, too_large (above 4 GiB), or unreadable.
        MemoryError: the file does not fit.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        shown = os.fsencode(path).decode("utf-8", "backslashreplace")
        raise ImageError("bad_name", shown, "has a name that is not valid UTF-8") from error
    name = str(path)
    try:
        with open(path, "rb", opener=_open_without_waiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ImageError("unreadable", name, "is not a regular file")
            if status.st_size > _MAX_FILE_BYTES:
                raise ImageError("too_large", name, f"is a file of {status.st_size} bytes")
            return file.read(), state_in(status)
    except PermissionError as error:
        raise ImageError("permission", name, "may not be read by this user") from error
    except FileNotFoundError as error:
        raise ImageError("vanished", name, "does not exist (any more)") from error
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        cause = getattr(error, "strerror", None) or error
        raise ImageError("unreadable", name, f"{READ_ERROR}{cause}") from error


def _open_without_waiting(path: str, flags: int) -> int:
    """Open for reading; without O_NONBLOCK the call would wait until somebody writes to a FIFO."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
