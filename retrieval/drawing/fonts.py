"""Fonts for pictures: Pillow's own, which is ASCII only, and the machine's fonts for other letters.

The caches belong to the process: a loaded font never changes, and both caches have a size.
"""

import os
import subprocess
import unicodedata
from functools import lru_cache

from PIL import ImageFont

Font = ImageFont.ImageFont | ImageFont.FreeTypeFont

# Common fonts of Linux, macOS and Windows, in this order; Pillow looks where each system keeps its fonts.
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
_NO_LETTER = "\U0010fffe"  # no font has this letter, so a font draws its shape for missing letters


@lru_cache(maxsize=16)
def own_font(size: int) -> Font:
    """Return Pillow's own font, ``size`` pixels high."""
    return ImageFont.load_default(size=size)


def drawable(text: str, font: Font) -> tuple[str, Font]:
    """Return ``text`` and a font that has its letters: ``font``, or one of the machine's fonts of the same size.

    If no font of the machine is found, the accents of letters are dropped.
    """
    if text.isascii() or not isinstance(font, ImageFont.FreeTypeFont):
        return text, font
    size = round(font.size)
    found = [each for name in _NAMES if (each := _named(name, size)) is not None]
    for each in (font, *found):
        if _has(each, text):
            return text, each
    rarest = max(text, key=ord)  # a font of Chinese or Japanese has Latin letters too
    other = _named(_file_with(rarest), size)
    if other is not None and _has(other, rarest):
        return text, other
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    if found:
        return text, found[0]
    return plain, font


@lru_cache(maxsize=256)
def _file_with(letter: str) -> str:
    """Return the font file that fontconfig, the font system of Linux, has for ``letter``; empty without fontconfig."""
    command = ["fc-match", "-f", "%{file}", f"sans:charset={ord(letter):x}"]
    try:
        asked = subprocess.run(command, capture_output=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return os.fsdecode(asked.stdout)


@lru_cache(maxsize=64)
def _named(name: str, size: int) -> ImageFont.FreeTypeFont | None:
    try:
        return ImageFont.truetype(name, size) if name else None
    except OSError:  # this machine has no font of that name
        return None


def _has(font: ImageFont.FreeTypeFont, text: str) -> bool:
    missing = bytes(font.getmask(_NO_LETTER))
    return all(bytes(font.getmask(letter)) != missing for letter in set(text) if letter > "~")


def shortened(text: str, font: Font, width: float) -> str:
    """Leave out the middle of ``text``, just enough to fit into ``width`` pixels."""
    text = text if len(text) <= 512 else f"{text[:256]}{text[-256:]}"
    if font.getlength(text) <= width:
        return text
    low, high = 0, len(text)  # ``low`` characters fit, and ``high`` do not
    while high - low > 1:
        keep = (low + high) // 2
        fits = font.getlength(_without_middle(text, keep)) <= width
        low, high = (keep, high) if fits else (low, keep)
    return _without_middle(text, low) if low else ""


def _without_middle(text: str, keep: int) -> str:
    head = keep // 2
    return f"{text[:head]}…{text[len(text) - (keep - head) :]}"
