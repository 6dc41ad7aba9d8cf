"""The rows and cells of a contact sheet, and their thumbnails."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageOps

from retrieval.errors import ImageError
from retrieval.images.decoding import DecodeRules, read_image, to_rgb
from retrieval.types import Fractions

BOX = (255, 60, 100)  # the colour of rectangles, on a white line that parts them from dark pictures


@dataclass(frozen=True)
class SheetCell:
    """One picture of a sheet: an image, or the path of one that is opened when the sheet is drawn.

    ``caption`` is the main text, such as the score; ``note`` is small print, such as the file's name.
    """

    image: Image.Image | Path | None
    caption: str
    note: str = ""
    box: Fractions | None = None  # drawn as a rectangle over the image


@dataclass(frozen=True)
class SheetRow:
    """A query and its neighbours, the best first, under a ``title`` such as the mode."""

    title: str
    query: SheetCell
    neighbours: Sequence[SheetCell]
    label: str = "query"  # of the image that stands apart


def outlined(image: Image.Image, box: Fractions) -> Image.Image:
    """Return a copy of an RGB image with a rectangle around the box."""
    drawn, (width, height) = image.copy(), (image.width - 1, image.height - 1)
    x, y, right, bottom = box[0] * width, box[1] * height, (box[0] + box[2]) * width, (box[1] + box[3]) * height
    pencil, line = ImageDraw.Draw(drawn), max(2, max(image.size) // 80)
    pencil.rectangle((x, y, right, bottom), outline="white", width=line + 1)
    pencil.rectangle((x, y, right, bottom), outline=BOX, width=line)
    return drawn


class Thumbnails:
    """Pictures that fit into a square of ``side`` pixels; each is read once for a sheet."""

    def __init__(self, side: int) -> None:
        self.side = side
        self._made: dict[Path | int, Image.Image | None] = {}

    def of(self, cell: SheetCell) -> Image.Image | None:
        """Return a cell's image with its box, ``side`` as the longer side; None if it can't be read."""
        picture = self._whole(cell.image)
        return picture if picture is None or cell.box is None else outlined(picture, cell.box)

    def _whole(self, source: Image.Image | Path | None) -> Image.Image | None:
        """Return ``source`` upright and RGB on white."""
        key = source if isinstance(source, Path) else id(source)
        if key not in self._made:
            self._made[key] = self._make(source)
        return self._made[key]

    def _make(self, source: Image.Image | Path | None) -> Image.Image | None:
        if source is None:
            return None
        try:
            if isinstance(source, Image.Image):
                image = to_rgb(source, "white")
            else:
                image, _ = read_image(source, DecodeRules(draft=self.side))
        except (ImageError, OSError, ValueError, MemoryError):  # the sheet shows the other pictures
            return None
        image.thumbnail((self.side, self.side), Image.Resampling.LANCZOS)
        return ImageOps.contain(image, (self.side, self.side), Image.Resampling.BICUBIC)
