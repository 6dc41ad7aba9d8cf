"""Turn a decoded image of any mode into upright 8-bit sRGB."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from retrieval.errors import UsageError
from retrieval.images.colour import means_srgb, to_srgb
from retrieval.images.tiff import GreyScale, grey_scale, integer_range
from retrieval.types import AlphaRule, ColourRule

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = frozenset(_TURNS[orientation] for orientation in (5, 6, 7, 8))
BAND_PIXELS = 2**20  # converted at a time, so that steps on the way to RGB take little memory
_FLOAT_WHITES = (1.0, 255.0, 65535.0)  # what programs write as white into floating-point images
_NEARLY_ALL = 99.5  # per cent of the values that the white of a floating-point image is chosen by
_SAMPLED = 2**20  # values that the white is chosen by, about
_OVERSHOOT = 2.0  # times white: highlights above it don't make white another value


def to_rgb(image: Image.Image, alpha: AlphaRule, colour: ColourRule = "srgb") -> Image.Image:
    """Return the image as 8-bit RGB, turned upright as its EXIF orientation says.

    ``colour="srgb"`` converts by the ICC profile in ``image.info``; ``"ignored"`` reads every image as sRGB. 16-bit
    grey (modes I;16* and I, which is clipped to that range) is divided by 257 and rounded; a grey TIFF by the range of
    its own samples. The white of mode F is 1, 255 or 65535, the first of which nearly all values stay below twice;
    NaN is black. ``alpha="drop"`` shows the colours under transparency. The result is a new image of bare pixels; a
    second call with it changes nothing.
    """
    image.load()
    turn = turn_of(image)
    if image.mode.startswith("I") or image.mode == "F" or grey_scale(image) is not None:
        image = _wide_grey(image, grey_scale(image), alpha)
    if image.mode == "RGB" and "transparency" not in image.info and (colour == "ignored" or means_srgb(image)):
        rgb = image.copy()
    else:
        rgb = _in_bands(image, alpha, colour)
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


def turn_of(image: Image.Image) -> Image.Transpose | None:
    """Return the turn that makes a loaded image upright; broken metadata does not reject its pixels."""
    try:
        return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except MemoryError:
        raise
    except Exception:
        return None


def _in_bands(image: Image.Image, alpha: AlphaRule, colour: ColourRule) -> Image.Image:
    width, height = image.size
    rows = max(1, BAND_PIXELS // max(1, width))
    if rows >= height:
        return _narrow_to_rgb(image, alpha, colour)
    rgb = Image.new("RGB", image.size)
    for top in range(0, height, rows):
        band = image.crop((0, top, width, min(top + rows, height)))
        rgb.paste(_narrow_to_rgb(band, alpha, colour), (0, top))
    return rgb


def _narrow_to_rgb(image: Image.Image, alpha: AlphaRule, colour: ColourRule) -> Image.Image:
    if image.mode == "La":  # Pillow can't convert La directly.
        image = _keeping_info(image, "LA")
    elif image.mode == "RGBa":
        image = _keeping_info(image, "RGBA")
    if colour == "srgb":
        image = to_srgb(image)
    if alpha == "white" and image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.copy()  # convert() would warn about the transparency that is dropped here
        del image.info["transparency"]
    return image.convert("RGB")


def _keeping_info(image: Image.Image, mode: str) -> Image.Image:
    converted = image.convert(mode)
    converted.info = image.info
    return converted


def _wide_grey(image: Image.Image, scale: GreyScale | None, alpha: AlphaRule) -> Image.Image:
    """Scale wide, signed and floating-point grey to L; ``white`` turns the transparent value of a 16-bit PNG white."""
    values = np.asarray(image)
    if image.mode == "F":
        grey = _grey_of_floats(values)
    else:
        grey = _grey_of_integers(values, scale, image.info.get("transparency") if alpha == "white" else None)
    if scale is not None and scale.white_is_zero:
        grey = 255 - grey
    scaled = Image.fromarray(grey)
    if "icc_profile" in image.info:
        scaled.info["icc_profile"] = image.info["icc_profile"]
    return scaled


def _grey_of_integers(values: NDArray[Any], scale: GreyScale | None, clear: object) -> NDArray[np.uint8]:
    white = 65535
    if scale is not None:
        values, white = integer_range(values, scale)
    if white > 65535:
        return _by_rows(values, lambda rows: np.rint(np.clip(rows, 0, white) * (255.0 / white)))
    steps = ((np.arange(white + 1, dtype=np.int64) * 255 + white // 2) // white).astype(np.uint8)
    if isinstance(clear, int) and 0 <= clear <= white:
        steps[clear] = 255
    return _by_rows(values, lambda rows: steps[np.clip(rows, 0, white)])


def _grey_of_floats(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    step = max(1, int((values.size / _SAMPLED) ** 0.5))
    sample = values[::step, ::step]
    finite = sample[np.isfinite(sample)]
    most = float(np.percentile(finite, _NEARLY_ALL)) if finite.size else 1.0
    white = next((white for white in _FLOAT_WHITES if most <= _OVERSHOOT * white), most)

    def scaled(rows: NDArray[np.float32]) -> NDArray[Any]:
        known = np.nan_to_num(rows.astype(np.float64), nan=0.0, posinf=white, neginf=0.0)
        return np.rint(np.clip(known, 0.0, white) * (255.0 / white))

    return _by_rows(values, scaled)


def _by_rows(values: NDArray[Any], scaled: Any) -> NDArray[np.uint8]:
    """Return ``scaled`` of the values [H, W], some rows at a time because it takes more memory than they do."""
    result = np.empty(values.shape, dtype=np.uint8)
    rows = max(1, BAND_PIXELS // max(1, values.shape[1]))
    for top in range(0, len(values), rows):
        result[top : top + rows] = scaled(values[top : top + rows])
    return result
