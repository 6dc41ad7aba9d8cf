"""Draw a contact sheet of search results as one picture."""

from collections.abc import Sequence
from dataclasses import replace

from PIL import Image, ImageDraw

from retrieval.drawing.cells import SheetCell, SheetRow, Thumbnails
from retrieval.drawing.fonts import Font, drawable, own_font, shortened
from retrieval.errors import UsageError
from retrieval.text import printable

_WHITE, _MAT, _LINE = (255, 255, 255), (242, 243, 246), (222, 225, 231)
_INK, _GREY, _ACCENT = (26, 29, 38), (118, 123, 137), (214, 58, 84)
_MOST_COLUMNS, _MARGIN, _GAP, _ASIDE = 10, 28, 14, 44
_COLUMNS_OF_TITLES, _LONG = 5, 512  # the most that titles widen a sheet to; the characters of one that are measured


def contact_sheet(rows: Sequence[SheetRow], heading: str = "", cell: int = 176) -> Image.Image:
    """Draw ``rows`` as an RGB picture; every image fits into a square of ``cell`` pixels.

    The query stands apart on the left. More than 10 neighbours continue in lines of 8 to 10.

    Raises:
        UsageError: cells below 32 pixels.
    """
    if cell < 32:
        raise UsageError(f"a cell of a contact sheet is at least 32 pixels wide, not {cell}")
    return _Sheet(rows, heading, cell).draw()


class _Sheet:
    """The layout of one contact sheet, and the picture that it draws on."""

    def __init__(self, rows: Sequence[SheetRow], heading: str, cell: int) -> None:
        self.rows, self.heading, self.cell, self.thumbnails = rows, printable(heading), cell, Thumbnails(cell)
        self.text, self.small, self.title, self.large = (
            own_font(max(9, round(cell * share))) for share in (0.085, 0.064, 0.115, 0.15)
        )
        self.columns = _columns([len(row.neighbours) for row in rows])
        self.first = _MARGIN + cell + _ASIDE  # where the neighbours start
        self.line = cell + round(0.32 * cell)
        self.above = round(0.24 * cell)  # the height of a row's title
        self.top = _MARGIN + (round(0.28 * cell) if heading else 0)

    def _lines(self, row: SheetRow) -> int:
        return max(1, -(-len(row.neighbours) // self.columns))

    def draw(self) -> Image.Image:
        width = self._width()
        height = self.top + sum(self.above + self._lines(row) * self.line for row in self.rows) + _MARGIN // 2
        self.image = Image.new("RGB", (width, height), _WHITE)
        self.pencil = ImageDraw.Draw(self.image)
        if self.heading:
            self._write(_MARGIN, _MARGIN * 3 // 4, self.heading, self.large, _INK, width - 2 * _MARGIN)
        y = self.top
        for row in self.rows:
            y = self._row(row, y)
        return self.image

    def _width(self) -> int:
        """Return the width that the pictures take, or more, so that the titles of few pictures are read whole."""

        def of(columns: int) -> int:
            return self.first + columns * (self.cell + _GAP) - _GAP + _MARGIN

        titles = (drawable(printable(row.title)[:_LONG], self.title) for row in self.rows)
        widest = max((round(font.getlength(text)) + 1 for text, font in titles), default=0)
        return max(of(self.columns), min(2 * _MARGIN + widest, of(_COLUMNS_OF_TITLES)))

    def _row(self, row: SheetRow, y: int) -> int:
        width = self.image.width - 2 * _MARGIN
        self.pencil.line((_MARGIN, y, _MARGIN + width, y), fill=_LINE)
        self._write(_MARGIN, y + self.above // 5, printable(row.title), self.title, _INK, width)
        y += self.above
        self._query(row.query, row.label, y)
        rule = self.first - _ASIDE // 2
        self.pencil.line((rule, y, rule, y + self._lines(row) * self.line - _MARGIN), fill=_LINE, width=2)
        if not row.neighbours:
            self._write(self.first, y, "no results", self.text, _GREY, self.cell)
        for rank, neighbour in enumerate(row.neighbours):
            line, column = divmod(rank, self.columns)
            self._cell(neighbour, self.first + column * (self.cell + _GAP), y + line * self.line, f"{rank + 1}")
        return y + self._lines(row) * self.line

    def _query(self, query: SheetCell, label: str, y: int) -> None:
        self.pencil.rounded_rectangle(
            (_MARGIN - 7, y - 7, _MARGIN + self.cell + 6, y + self.cell + 6), 6, outline=_ACCENT, width=4
        )
        extra = query if query.caption != label else replace(query, caption="")
        self._cell(extra, _MARGIN, y, label, _ACCENT)

    def _cell(self, cell: SheetCell, x: int, y: int, label: str, colour: tuple[int, int, int] = _GREY) -> None:
        side = self.cell
        picture = self.thumbnails.of(cell)
        self.pencil.rectangle((x, y, x + side - 1, y + side - 1), fill=_MAT if picture else _LINE)
        if picture is None:
            self.pencil.text((x + side / 2, y + side / 2), "not found", font=self.text, fill=_GREY, anchor="mm")
        else:
            self.image.paste(picture, (x + (side - picture.width) // 2, y + (side - picture.height) // 2))
        below = y + side + side // 20
        taken = self._write(x, below, label, self.text, colour, side) + side // 20
        self._write(x + taken, below, printable(cell.caption), self.text, _INK, side - taken, right=True)
        self._write(x, below + round(0.115 * side), printable(cell.note), self.small, _GREY, side)

    def _write(
        self, x: float, y: float, text: str, font: Font, fill: tuple[int, int, int], width: float, right: bool = False
    ) -> int:
        # Returns the width of the text, which is shortened to fit; every script must be drawn without an error.
        text, font = drawable(text, font)
        text = shortened(text, font, width)
        taken = font.getlength(text)
        self.pencil.text((x + (width - taken if right else 0), y), text, font=font, fill=fill)
        return round(taken)


def _columns(counts: Sequence[int]) -> int:
    """Return the pictures in a line: all if there are up to 10, else the number that leaves the fewest gaps."""
    most = max(counts, default=0)
    if most <= _MOST_COLUMNS:
        return max(most, 1)
    return min((10, 9, 8), key=lambda columns: sum(-count % columns for count in counts))
