"""Letters for pictures: Pillow's own font, and one of this machine's for what that has no shape for (it is ASCII)."""

import unicodedata
from functools import lru_cache

from PIL import ImageFont

Font = ImageFont.ImageFont | ImageFont.FreeTypeFont

# Common on Linux, macOS and Windows, in this order; Pillow looks for them where each system keeps its fonts.
_NAMES = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "LiberationSans-Regular.ttf",
    "Arial Unicode.ttf",
    "Arial.ttf",
    "segoeui.ttf",
    "NotoSansCJK-Regular.ttc",
    "msyh.ttc",
)
_NO_LETTER = "\U0010fffe"  # no font has a shape for it: what is drawn instead is what it draws for all that it lacks


@lru_cache(maxsize=16)
def own_font(size: int) -> Font:
    """Return Pillow's own font, ``size`` pixels high."""
    return ImageFont.load_default(size=size)


def drawable(text: str, font: Font) -> tuple[str, Font]:
    """Return ``text`` and a font that has its letters: ``font``, or one of this machine's of the same size.

    Where none has them all, letters lose their accents as far as that helps.
    """
    if text.isascii() or not isinstance(font, ImageFont.FreeTypeFont):
        return text, font
    found = [each for name in _NAMES if (each := _named(name, round(font.size))) is not None]
    for each in (font, *found):
        if _has(each, text):
            return text, each
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    if found:
        return text, found[0]
    return plain, font


@lru_cache(maxsize=64)
def _named(name: str, size: int) -> ImageFont.FreeTypeFont | None:
    try:
        return ImageFont.truetype(name, size)
    except OSError:  # this machine has none of that name
        return None


def _has(font: ImageFont.FreeTypeFont, text: str) -> bool:
    lacking = bytes(font.getmask(_NO_LETTER))
    return all(bytes(font.getmask(letter)) != lacking for letter in set(text) if letter > "~")
