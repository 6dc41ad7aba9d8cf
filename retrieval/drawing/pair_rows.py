"""Draw pairs of pictures with heat maps over them, and lines between cells that correspond."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps

from retrieval.drawing.cells import SheetCell, Thumbnails
from retrieval.drawing.fonts import drawable, own_font, shortened
from retrieval.text import printable

Box = tuple[float, float, float, float]
Point = tuple[float, float]  # (x, y), pixels
Cell = tuple[int, int]  # (row, column)

SIDE, GAP, MARGIN, ABOVE, BELOW = 288, 18, 28, 40, 34  # pixels
BETWEEN = 96  # between the two heat maps, where lines are seen best
HEAT = 0.62  # share of the colour; the rest is the grey picture below
SMOOTH = 3  # lines are drawn so many times larger, and reduced
WHITE, MAT, RULE, INK, GREY = (255, 255, 255), (242, 243, 246), (222, 225, 231), (26, 29, 38), (105, 110, 124)
# From low to high: lightness rises all the way, so the order is seen with any kind of colour vision and in grey.
SCALE = np.array([(68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37)], np.float64)


@dataclass(frozen=True)
class HeatedPicture:
    """A picture and the values of its cells; ``region`` is the part that the cells cover, in fractions of its sides."""

    image: Image.Image | Path
    values: NDArray[np.float32]  # [rows, columns]
    region: Box
    caption: str = ""


@dataclass(frozen=True)
class PairRow:
    """Two pictures under a title; ``links`` are a cell of the left, a cell of the right, and a weight above 0."""

    title: str
    left: HeatedPicture
    right: HeatedPicture
    links: Sequence[tuple[Cell, Cell, float]]


def draw_pairs(rows: Sequence[PairRow], values_are: str, links_are: str) -> Image.Image:
    """Return an RGB picture of ``rows`` below a legend; all rows share one scale of colours.

    Each row shows the left picture, its heat map, the heat map of the right picture, and that picture. A picture that
    can't be read is a grey square.

    Args:
        rows: one pair each.
        values_are: the legend's words for the values of cells.
        links_are: its words for the lines, which are the wider, the larger their weight is among those of the row.
    """
    return _Pairs(rows).draw(values_are, links_are)


class _Pairs:
    """The layout of one picture, and the picture that it draws on."""

    def __init__(self, rows: Sequence[PairRow]) -> None:
        self.rows, self.thumbnails = rows, Thumbnails(SIDE)
        everything = [value for row in rows for each in (row.left, row.right) for value in each.values.flat]
        self.low, self.high = float(min(everything)), float(max(everything))
        inner = MARGIN + SIDE + GAP
        self.lefts = (MARGIN, inner, inner + SIDE + BETWEEN, inner + 2 * SIDE + BETWEEN + GAP)
        self.small, self.large = own_font(15), own_font(19)

    def draw(self, values_are: str, links_are: str) -> Image.Image:
        line = ABOVE + SIDE + BELOW
        size = (self.lefts[3] + SIDE + MARGIN, MARGIN + 3 * BELOW + line * len(self.rows))
        self.image = Image.new("RGB", size, WHITE)
        self.pencil = ImageDraw.Draw(self.image)
        self._legend(values_are, links_are)
        for number, row in enumerate(self.rows):
            self._row(row, MARGIN + 2 * BELOW + number * line)
        return self.image

    def _legend(self, values_are: str, links_are: str) -> None:
        left, width, top = self.lefts[1], 2 * SIDE + BETWEEN, MARGIN
        bar = Image.fromarray(colours(np.linspace(0, 1, width)[None]))
        self.image.paste(bar.resize((width, 14)), (left, top))
        self.pencil.text((left - 10, top + 6), values_are, font=self.small, fill=INK, anchor="rm")
        self.pencil.text((left + width + 10, top + 6), links_are, font=self.small, fill=INK, anchor="lm")
        for share, anchor in ((0.0, "la"), (0.25, "ma"), (0.5, "ma"), (0.75, "ma"), (1.0, "ra")):
            value = self.low + share * (self.high - self.low)
            place = (left + share * (width - 1), top + 18)
            self.pencil.text(place, f"{value:.4f}", font=self.small, fill=GREY, anchor=anchor)

    def _row(self, row: PairRow, top: int) -> None:
        right_end = self.image.width - MARGIN
        self.pencil.line((MARGIN, top, right_end, top), fill=RULE)
        self._write(MARGIN, top + 9, row.title, right_end - MARGIN)
        top += ABOVE
        boxes = [self._pair(row.left, self.lefts[0], self.lefts[1], top)]
        boxes.append(self._pair(row.right, self.lefts[3], self.lefts[2], top))
        ends = [
            (_centre(row.left, boxes[0], first), _centre(row.right, boxes[1], second), weight)
            for first, second, weight in row.links
        ]
        self._lines(ends, top)

    def _pair(self, picture: HeatedPicture, plain_left: int, heated_left: int, top: int) -> Box:
        """Draw a picture and its heat map, and return where the map's picture lies."""
        found = self.thumbnails.of(SheetCell(picture.image, ""))
        for left in (plain_left, heated_left):
            self.pencil.rectangle((left, top, left + SIDE - 1, top + SIDE - 1), fill=MAT)
        shown = found or Image.new("RGB", (SIDE, SIDE), RULE)
        across, down = (SIDE - shown.width) // 2, (SIDE - shown.height) // 2
        self.image.paste(shown, (plain_left + across, top + down))
        if found is None:
            centre = (plain_left + SIDE / 2, top + SIDE / 2)
            self.pencil.text(centre, "not found", font=self.small, fill=GREY, anchor="mm")
        self.image.paste(self._heated(shown, picture), (heated_left + across, top + down))
        self._write(plain_left, top + SIDE + 6, picture.caption, SIDE, small=True)
        return heated_left + across, top + down, heated_left + across + shown.width, top + down + shown.height

    def _heated(self, shown: Image.Image, picture: HeatedPicture) -> Image.Image:
        """Return the grey picture under the colours of its cells; parts outside the region stay pale."""
        shares = (picture.values - self.low) / ((self.high - self.low) or 1.0)
        grey = ImageOps.grayscale(shown).convert("RGB")
        heat = Image.blend(grey, Image.new("RGB", shown.size, WHITE), HEAT)
        box = [round(at * side) for at, side in zip(picture.region, shown.size * 2, strict=True)]
        size = max(1, box[2] - box[0]), max(1, box[3] - box[1])
        cells = Image.fromarray(colours(shares)).resize(size, Image.Resampling.NEAREST)
        covered = Image.new("L", shown.size)
        covered.paste(255, (box[0], box[1], box[0] + size[0], box[1] + size[1]))
        coloured = Image.new("RGB", shown.size)
        coloured.paste(cells, (box[0], box[1]))
        heat.paste(Image.blend(grey, coloured, HEAT), mask=covered)
        return heat

    def _lines(self, ends: Sequence[tuple[Point, Point, float]], top: int) -> None:
        """Draw lines over both maps of a row, the strongest on top, and over all lines the dots at their ends."""
        left = self.lefts[1]
        size = (self.lefts[2] + SIDE - left, SIDE)
        over = Image.new("RGBA", (size[0] * SMOOTH, size[1] * SMOOTH))
        pencil = ImageDraw.Draw(over)
        strongest = max((weight for _, _, weight in ends), default=1.0)
        placed = [([((x - left) * SMOOTH, (y - top) * SMOOTH) for x, y in pair], weight) for *pair, weight in ends]
        for points, weight in reversed(placed):
            width = round(SMOOTH * (1 + 2.5 * (weight / strongest) ** 2))
            pencil.line(points, fill=(*WHITE, 255), width=width + 2 * SMOOTH)
            pencil.line(points, fill=(*INK, 255), width=width)
        for x, y in dict.fromkeys(point for points, _ in placed for point in points):
            for colour, radius in ((WHITE, 5 * SMOOTH), (INK, 3.5 * SMOOTH)):
                pencil.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(*colour, 255))
        over = over.resize(size, Image.Resampling.LANCZOS)
        self.image.paste(over, (left, top), over)

    def _write(self, x: int, y: int, text: str, width: int, small: bool = False) -> None:
        text, font = drawable(printable(text), self.small if small else self.large)
        self.pencil.text((x, y), shortened(text, font, width), font=font, fill=GREY if small else INK)


def colours(shares: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Return the colours ``[..., 3]`` of shares from 0 (low) to 1 (high)."""
    places = np.linspace(0, 1, len(SCALE))
    channels = [np.interp(shares, places, SCALE[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def _centre(picture: HeatedPicture, box: Box, cell: Cell) -> Point:
    """Return the middle of a cell, kept inside the drawn picture: padding may reach beyond it."""
    rows, columns = picture.values.shape
    left, top, right, bottom = picture.region
    x = left + (right - left) * (cell[1] + 0.5) / columns
    y = top + (bottom - top) * (cell[0] + 0.5) / rows
    x, y = min(max(x, 0.0), 1.0), min(max(y, 0.0), 1.0)
    return box[0] + x * (box[2] - box[0]), box[1] + y * (box[3] - box[1])
