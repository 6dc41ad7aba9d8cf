"""Turn search results into a contact sheet."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from retrieval.drawing.cells import SheetCell, SheetRow
from retrieval.drawing.sheet_file import write_sheet
from retrieval.images.decoding import DecodeRules, decode_bytes, from_array
from retrieval.search.query import ImageInput
from retrieval.search.results import Results

MOST_NEIGHBOURS = 1000  # on one sheet, for it is made in memory; every query has one at least


def write_results_sheet(path: Path, searches: Sequence[tuple[ImageInput, Results]], heading: str = "") -> int:
    """Draw queries and what was found for them, a row a search, as ``path`` (.png, .jpg, .webp or .html).

    Returns:
        How many neighbours there was no room for: the farthest of each query.

    Raises:
        UsageError: a suffix that no sheet can have.
        DiffSimError: it can't be written.
    """
    room = max(1, MOST_NEIGHBOURS // max(1, len(searches)))
    rows = [row for query, results in searches for row in sheet_rows([results], query, room)]
    write_sheet(path, rows, heading)
    return sum(max(0, len(results) - room) for _, results in searches)


def sheet_rows(searches: Sequence[Results], query: ImageInput, room: int = MOST_NEIGHBOURS) -> list[SheetRow]:
    """Return one row a search, titled with its mode, of ``room`` neighbours at most."""
    cell = SheetCell(_picture(query), "query", _short(query) if isinstance(query, str | Path) else "")
    rows = []
    for results in searches:
        shown = results[:room]
        captions = _captions([result.shown_score for result in shown])
        rows.append(
            SheetRow(
                title=results.mode + (", coarse ranking: scores of the coarse stage" if results.is_coarse else ""),
                query=cell,
                neighbours=[
                    SheetCell(Path(result.path), caption, _short(result.path))
                    for result, caption in zip(shown, captions, strict=True)
                ],
            )
        )
    return rows


def _captions(scores: Sequence[float]) -> list[str]:
    """Return scores in three digits, or in four where three would show different ones as the same."""
    captions = [f"{score:.3f}" for score in scores]
    if len(set(captions)) < len(set(scores)):
        captions = [f"{score:.4f}" for score in scores]
    return captions


def _short(path: str | Path) -> str:
    return "/".join(Path(path).parts[-2:])


def _picture(query: ImageInput) -> Image.Image | Path:
    if isinstance(query, str | Path):
        return Path(query)
    if isinstance(query, bytes):
        return decode_bytes(query, "the query", DecodeRules())[0]
    return query if isinstance(query, Image.Image) else from_array(query, "the query")
