"""Open TIFF files: grey samples of any width and sign, and libtiff's own messages kept off stderr."""

import ctypes
from dataclasses import dataclass
from functools import cache
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import _imaging
from PIL.TiffImagePlugin import (
    BITSPERSAMPLE,
    EXTRASAMPLES,
    PHOTOMETRIC_INTERPRETATION,
    SAMPLEFORMAT,
    SAMPLESPERPIXEL,
    TiffImageFile,
)

_UNSIGNED, _SIGNED, _FLOAT = 1, 2, 3
_WHITE_IS_ZERO, _BLACK_IS_ZERO = 0, 1
_KINDS = {_UNSIGNED: "unsigned integers", _SIGNED: "signed integers", _FLOAT: "floating-point numbers"}
_COLOURS = {
    _WHITE_IS_ZERO: "grey", _BLACK_IS_ZERO: "grey", 2: "RGB", 3: "palette", 5: "CMYK", 6: "YCbCr", 8: "Lab",
    32803: "colour filter array", 32844: "LogL", 32845: "LogLuv", 34892: "linear raw",
}  # fmt: skip


@dataclass(frozen=True)
class GreyScale:
    """How the samples of a grey TIFF become 0..255."""

    bits: int
    form: int  # 1: unsigned, 2: signed, 3: floating point
    white_is_zero: bool


class _Tiff(TiffImageFile):
    """Pillow's reader, which also takes grey samples in the byte orders that Pillow's table of modes leaves out."""

    grey: GreyScale | None = None

    def _setup(self) -> None:
        tags = self.tag_v2
        bits = tuple(tags.get(BITSPERSAMPLE, (1,)))
        forms = set(tags.get(SAMPLEFORMAT, (_UNSIGNED,)))
        colours, count = tags.get(PHOTOMETRIC_INTERPRETATION, 0), tags.get(SAMPLESPERPIXEL, 1)
        form = forms.pop() if len(forms) == 1 else 0
        if count == 1 and len(bits) == 1 and colours in (_WHITE_IS_ZERO, _BLACK_IS_ZERO) and EXTRASAMPLES not in tags:
            self._take_grey(bits[0], form, colours)
        try:
            super()._setup()
        except SyntaxError as error:
            if "unknown" not in str(error):
                raise
            kind, widths = _KINDS.get(form, "samples"), "/".join(map(str, sorted(set(bits))))
            samples = f"{count} {_COLOURS.get(colours, f'photometric {colours}')} sample{'s' * (count != 1)} a pixel"
            raise SyntaxError(f"it has {samples}, {kind} of {widths} bits, which Pillow does not read") from error

    def _take_grey(self, bits: int, form: int, colours: int) -> None:
        wide = bits in (12, 16, 32) and form in _KINDS
        if not wide and not (bits == 8 and form == _SIGNED):
            return  # Pillow scales and inverts narrow unsigned samples itself
        self.grey = GreyScale(bits, form, colours == _WHITE_IS_ZERO)
        self.tag_v2[PHOTOMETRIC_INTERPRETATION] = _BLACK_IS_ZERO  # the table has few entries for white is zero
        if bits == 32 and form == _UNSIGNED and self.tag_v2.prefix == b"MM":
            self.tag_v2[SAMPLEFORMAT] = (_SIGNED,)  # the same bytes in Pillow's mode I
        if bits == 12:
            self.tag_v2._prefix = b"II"  # 12 bits are packed alike in either byte order; the table has this one only


def open_tiff(data: bytes) -> TiffImageFile:
    """Open a TIFF's first page.

    Raises:
        Exception: whatever Pillow raises for a damaged file or an unknown kind of samples.
    """
    _silence_libtiff()
    return _Tiff(BytesIO(data))


def grey_scale(image: object) -> GreyScale | None:
    """Return how the samples of an opened TIFF become 0..255; None where Pillow does it, and for other images."""
    return image.grey if isinstance(image, _Tiff) else None


def integer_range(values: NDArray[np.integer], scale: GreyScale) -> tuple[NDArray[np.integer], int]:
    """Return the samples with their own sign, and the value that is full white.

    Negative samples are black. 32-bit samples that all fit in 16 bits are read as 16-bit ones, because programs that
    write counts leave the upper half empty.
    """
    if scale.form == _UNSIGNED and scale.bits == 32:
        values = values.view(np.uint32)
    elif scale.form == _SIGNED and scale.bits == 8:
        values = values.view(np.int8)
    white = 2 ** (scale.bits - (scale.form == _SIGNED)) - 1
    if scale.bits == 32 and int(values.max()) <= 65535:
        white = 65535
    return values, white


@cache
def _silence_libtiff() -> None:
    """Stop libtiff from printing errors and warnings to stderr by itself, in the whole process.

    Pillow raises its own errors. Its copy of libtiff is reached through Pillow's module; a build that hides it is left
    as it is.
    """
    try:
        library = ctypes.CDLL(_imaging.__file__)
        for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
            setter = getattr(library, name)
            setter.argtypes, setter.restype = [ctypes.c_void_p], ctypes.c_void_p
            setter(None)
    except (OSError, AttributeError):
        return
