"""Draw the results of searches as a contact sheet."""

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageOps

from retrieval.drawing.cells import SheetCell, SheetRow
from retrieval.drawing.fonts import drawable, own_font
from retrieval.drawing.sheet_file import write_sheet
from retrieval.images.decoding import DecodeRules
from retrieval.search.queries.picture import Picture
from retrieval.search.queries.query import Query, QueryInput, as_query
from retrieval.search.results import Result, Results
from retrieval.text import printable
from retrieval.types import Fractions

MOST_NEIGHBOURS = 1000  # on one sheet, which is drawn in memory; every query shows at least one

BOARD_PX = 448  # side of the picture of a question of several images
LETTERS_A_LINE, LINES = 20, 9  # of the picture of a text
CROSS = (214, 39, 40)  # red, over an image to move away from


def draw_results(path: Path, searches: Sequence[tuple[QueryInput, Results]], heading: str = "") -> int:
    """Draw queries and their neighbours, a row a search, as ``path`` (.png, .jpg, .webp or .html).

    Returns:
        How many neighbours are left out, the farthest of each query, where there are too many for one sheet.

    Raises:
        UsageError: no sheet can have this suffix.
        DiffSimError: the file can't be written.
    """
    most = max(1, MOST_NEIGHBOURS // max(1, len(searches)))
    digits = _digits([results[:most] for _, results in searches])
    rows = [row for query, results in searches for row in sheet_rows([results], query, most, digits)]
    write_sheet(path, rows, heading)
    return sum(max(0, len(results) - most) for _, results in searches)


def sheet_rows(
    searches: Sequence[Results], query: QueryInput, most: int = MOST_NEIGHBOURS, digits: int | None = None
) -> list[SheetRow]:
    """Return one row a search, titled with its mode, of ``most`` neighbours at most.

    Args:
        searches: of one query.
        query: as it was searched with.
        most: neighbours in a row.
        digits: of each score; None: as few of 3 and 4 as tell the scores of each row apart.
    """
    picture, box = _picture(query), _box(query, searches)
    digits = _digits([results[:most] for results in searches]) if digits is None else digits
    cell = SheetCell(picture, "query", _end_of(picture) if isinstance(picture, Path) else "", box)
    return [
        SheetRow(
            title=results.mode + (", coarse ranking: scores of the coarse stage" if results.is_coarse else ""),
            query=cell,
            neighbours=_neighbours(results[:most], digits),
        )
        for results in searches
    ]


def _neighbours(shown: Sequence[Result], digits: int) -> list[SheetCell]:
    return [
        SheetCell(Path(result.path), _caption(result, digits), _end_of(result.path), result.found_box)
        for result in shown
    ]


def _caption(result: Result, digits: int) -> str:
    """Return a result's score and, in brackets, its percentiles, or else the number that the order goes by."""
    facts = [f"{each:.2f} %" for each in result.percentiles]
    if not facts and result.order_key is not None:
        facts = [f"by {result.order_key:.{digits}f}"]
    return f"{result.shown_score:.{digits}f}" + (f" ({', '.join(facts)})" if facts else "")


def _digits(rows: Sequence[Sequence[Result]]) -> int:
    """Return 3, or 4 if three digits would make different scores of a row look the same: one number for a sheet."""
    for row in rows:
        scores = {result.shown_score for result in row}
        if len({f"{score:.3f}" for score in scores}) < len(scores):
            return 4
    return 3


def _end_of(path: str | Path) -> str:
    """Return the folder's and the file's name."""
    return "/".join(Path(path).parts[-2:])


def _picture(given: QueryInput) -> Image.Image | Path:
    """Return the query's file, which the sheet reads itself, or its picture; a board is one picture of all."""
    query = as_query(given)
    if not query.images:
        return placard(query.texts)
    if not query.is_plain:
        return board(query.read(DecodeRules()))
    (image,) = query.images
    if isinstance(image, Picture):
        return image.image if image.path is None else Path(image.path)
    if isinstance(image, str | Path):
        return Path(image)
    if isinstance(image, Image.Image):  # the sheet puts transparent parts on white
        return image
    return Picture.read(image, DecodeRules()).image


def _box(given: QueryInput, searches: Sequence[Results]) -> Fractions | None:
    """Return the box of the one region that a question has; a board draws its regions itself."""
    query = as_query(given)
    if not query.images:
        return None
    image = query.images[0]
    if not query.is_plain or not (query.regions or isinstance(image, Picture)):
        return None
    picture = query.read(DecodeRules()).pictures[0]
    if picture.seeks_subject:  # a search found it
        return next((tuple(found.query["region"]["box"]) for found in searches if "region" in found.query), None)
    region = picture.region
    is_cut_out = isinstance(image, Picture) and image.path is None  # then the sheet shows the region alone
    return None if region is None or is_cut_out else region.box


def placard(texts: Sequence[str]) -> Image.Image:
    """Draw texts that ask, in lines, as the picture of a question."""
    drawn = Image.new("RGB", (BOARD_PX, BOARD_PX), "white")
    words = textwrap.wrap(printable(", ".join(texts)), LETTERS_A_LINE, max_lines=LINES, placeholder=" ...")
    letters, font = drawable("\n".join(words), own_font(BOARD_PX // 12))
    middle = (BOARD_PX / 2, BOARD_PX / 2)
    ImageDraw.Draw(drawn).multiline_text(middle, letters, font=font, fill="black", anchor="mm", align="center")
    return drawn


def board(query: Query) -> Image.Image:
    """Draw a question that was read as a square grid: regions alone, images to move away from crossed out."""
    side = math.ceil(math.sqrt(len(query.pictures)))
    cell = BOARD_PX // side
    drawn = Image.new("RGB", (BOARD_PX, BOARD_PX), "white")
    for place, picture in enumerate(query.pictures):
        small = ImageOps.contain(picture.image, (cell - 4, cell - 4))
        if place >= len(query.images):
            corners = (0, 0, small.width - 1, small.height - 1)
            ImageDraw.Draw(small).line(corners, fill=CROSS, width=max(2, cell // 24))
        row, column = divmod(place, side)
        left, top = column * cell + (cell - small.width) // 2, row * cell + (cell - small.height) // 2
        drawn.paste(small, (left, top))
    return drawn
