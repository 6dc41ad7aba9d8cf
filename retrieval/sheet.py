"""Contact sheets of search results: a picture (PNG, JPEG, WebP) or one HTML file, whichever is asked for."""

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from retrieval.errors import UsageError

__all__ = ["SheetCell", "SheetRow", "contact_sheet", "thumbnail", "write_sheet"]

_PICTURES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
_PAGES = (".html", ".htm")

_PAPER, _MAT, _LINE = (255, 255, 255), (243, 244, 247), (226, 228, 234)
_INK, _GREY, _ACCENT = (28, 30, 38), (122, 127, 140), (214, 62, 84)
_COLUMNS, _GAP, _MARGIN = 8, 12, 24


@dataclass(frozen=True)
class SheetCell:
    """One picture of a sheet: an image, or the path of one (opened only when the sheet is made).

    ``caption`` is what matters about it, such as its score; ``note`` is small print, such as its name.
    """

    image: Image.Image | Path | None
    caption: str
    note: str = ""


@dataclass(frozen=True)
class SheetRow:
    """A query and its neighbours, the best first, under a ``title`` such as the kind of similarity."""

    title: str
    query: SheetCell
    neighbours: Sequence[SheetCell]


def thumbnail(source: Image.Image | Path | None, side: int) -> Image.Image | None:
    """Fit ``source`` into a square of ``side`` pixels, upright, as RGB on white; None if it can't be read."""
    if source is None:
        return None
    try:
        if isinstance(source, Image.Image):
            return _fitted(source.copy(), side)
        with Image.open(source) as image:
            image.draft("RGB", (side, side))  # lets a JPEG decode at a fraction of its size
            return _fitted(image, side)
    # Whatever a broken or hostile file makes a decoder raise, a sheet shows the other pictures.
    except (OSError, ValueError, SyntaxError, EOFError, MemoryError, Image.DecompressionBombError):
        return None


def _fitted(image: Image.Image, side: int) -> Image.Image:
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        image = image.point(lambda level: level / 256).convert("L") if image.mode.startswith("I;16") else image
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
        flat = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(flat, image).convert("RGB")
    image = image.convert("RGB")
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return image
