"""Open AVIF and HEIC files, with the colour space that their headers state by numbers."""

from io import BytesIO

from PIL import ImageFile
from PIL.AvifImagePlugin import AvifImageFile

from retrieval.errors import ImageError
from retrieval.images.icc import coded_profile

_HEADER_BYTES = 2**16  # the box with the properties stands at the start of a file
_COLOUR_BOX = b"colrnclx"


def open_avif(data: bytes) -> ImageFile.ImageFile:
    """Open an AVIF file's first picture.

    Raises:
        Exception: whatever Pillow raises for a damaged file.
    """
    return _with_colour(AvifImageFile(BytesIO(data)), data)


def open_heic(data: bytes, name: str) -> ImageFile.ImageFile:
    """Open a HEIC file's main picture, already upright.

    Raises:
        ImageError: the package that decodes HEIC is not installed.
        Exception: whatever that package raises for a damaged file.
    """
    try:
        from pillow_heif import HeifImageFile
    except ImportError as error:
        detail = "is a HEIC image, which needs the Python package pillow-heif (extra: heic)"
        raise ImageError("unsupported", name, detail) from error
    image: ImageFile.ImageFile = HeifImageFile(BytesIO(data))
    return _with_colour(image, data)


def _with_colour(image: ImageFile.ImageFile, data: bytes) -> ImageFile.ImageFile:
    """Give an image without an ICC profile the one that its code points stand for."""
    at = data.find(_COLOUR_BOX, 0, _HEADER_BYTES)
    if at >= 0 and not image.info.get("icc_profile"):
        numbers = data[at + len(_COLOUR_BOX) :][:4]
        profile = coded_profile(int.from_bytes(numbers[:2], "big"), int.from_bytes(numbers[2:], "big"))
        if profile is not None:
            image.info["icc_profile"] = profile
    return image
