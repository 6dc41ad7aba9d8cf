"""Convert colours to sRGB by the ICC profile of an image, with Little CMS.

A profile that means sRGB, by a look at some colours, is skipped: most photos have one. A damaged profile, and one for
another kind of pixels, is ignored as viewers ignore it.
"""

from functools import lru_cache
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

_MAX_PROFILE_BYTES = 2**24
_SAME = 2  # grey levels of 255: rounding inside a profile that means sRGB
_SPACES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}
_CLASSES = ("mntr", "scnr", "prtr", "spac")


def to_srgb(image: Image.Image) -> Image.Image:
    """Return the image in sRGB by the profile in ``image.info``; the image itself where there is nothing to convert.

    A grey profile keeps the modes L and LA. Otherwise a converted image has the mode RGB, or RGBA with transparency.
    Wide grey modes (I, I;16, F) are for the caller to scale first.
    """
    profile = image.info.get("icc_profile")
    if not isinstance(profile, bytes) or not 128 <= len(profile) <= _MAX_PROFILE_BYTES:
        return image
    space = _SPACES.get(profile[16:20].decode("latin-1"))
    grey = image.mode in ("L", "LA", "1")
    if space == "L":
        return _convert_grey(image, profile) if grey else image
    if space is None or (space == "CMYK") != (image.mode == "CMYK"):
        return image
    transform = _transform(profile, space)
    if transform is None:
        return image
    if space == "CMYK":
        return ImageCms.applyTransform(image, transform) or image
    alpha = image.has_transparency_data
    plain = image.convert("RGBA" if alpha else "RGB")
    return _converted_rgb(plain, transform)


def means_srgb(image: Image.Image) -> bool:
    """Whether an RGB image has no profile, one that means sRGB, or one that is ignored."""
    profile = image.info.get("icc_profile")
    if not isinstance(profile, bytes) or not 128 <= len(profile) <= _MAX_PROFILE_BYTES or profile[16:20] != b"RGB ":
        return True
    return _transform(profile, "RGB") is None


def _converted_rgb(image: Image.Image, transform: ImageCms.ImageCmsTransform) -> Image.Image:
    """Convert an RGB or RGBA image, which may share its pixels with another image."""
    alpha = image.getchannel("A") if image.mode == "RGBA" else None
    converted = ImageCms.applyTransform(image.convert("RGB"), transform)
    assert converted is not None
    if alpha is not None:
        converted.putalpha(alpha)
    converted.info = image.info
    return converted


def _convert_grey(image: Image.Image, profile: bytes) -> Image.Image:
    curve = _grey_curve(profile)
    if curve is None:
        return image
    if image.mode == "1":
        image = image.convert("L")
    if isinstance(clear := image.info.get("transparency"), int):  # the transparent value is one of the file's own
        image = _with_alpha(image, clear)
    info = image.info
    converted = image.point(list(curve) + (list(range(256)) if image.mode == "LA" else []))
    converted.info = info
    return converted


def _with_alpha(image: Image.Image, clear: int) -> Image.Image:
    alpha = image.point([0 if value == clear else 255 for value in range(256)])
    merged = Image.merge("LA", (image, alpha))
    merged.info = {key: value for key, value in image.info.items() if key != "transparency"}
    return merged


@lru_cache(maxsize=16)
def _transform(profile: bytes, space: str) -> ImageCms.ImageCmsTransform | None:
    """Return the conversion of a profile to sRGB; None for a profile that means sRGB, and for a damaged one."""
    transform = _built(profile, space)
    if transform is None:
        return None
    probe = _probe(space)
    try:
        converted = ImageCms.applyTransform(probe, transform)
    except (ImageCms.PyCMSError, ValueError):
        return None
    if space == "RGB" and _is_same(np.asarray(converted), np.asarray(probe)):
        return None
    return transform


@lru_cache(maxsize=16)
def _grey_curve(profile: bytes) -> bytes | None:
    """Return the sRGB grey of each of the 256 values of a grey profile; None where nothing changes."""
    transform = _built(profile, "L")
    if transform is None:
        return None
    ramp = Image.frombytes("L", (256, 1), bytes(range(256)))
    try:
        converted = np.asarray(ImageCms.applyTransform(ramp, transform))[0, :, 1]
    except (ImageCms.PyCMSError, ValueError):
        return None
    return None if _is_same(converted, np.arange(256)) else converted.tobytes()


def _built(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Build the conversion from ``mode`` by relative colorimetry, the black point of paper brought to black."""
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        if source.profile.device_class not in _CLASSES:
            return None
        return ImageCms.buildTransform(
            source,
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


def _probe(space: str) -> Image.Image:
    """Return colours to compare: 6 levels of each channel, and all greys."""
    levels = np.arange(0, 256, 51, dtype=np.uint8)
    channels = 4 if space == "CMYK" else 3
    grid = np.stack(np.meshgrid(*[levels] * channels), axis=-1).reshape(1, -1, channels)
    greys = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], channels, axis=2)
    return Image.fromarray(np.concatenate([grid, greys], axis=1), mode=space)


def _is_same(converted: NDArray[np.uint8], plain: NDArray[np.integer]) -> bool:
    return int(np.abs(converted.astype(int) - plain).max()) <= _SAME
