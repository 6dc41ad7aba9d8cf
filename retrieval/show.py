"""Turn search results into a contact sheet."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from retrieval.images import DecodeRules, decode_bytes, from_array
from retrieval.queries import ImageInput
from retrieval.results import Results
from retrieval.sheet import SheetCell, SheetRow, write_sheet


def write_results_sheet(path: Path, searches: Sequence[tuple[ImageInput, Results]], heading: str = "") -> None:
    """Draw queries and what was found for them, a row a search, as ``path`` (.png, .jpg, .webp or .html).

    Raises:
        UsageError: a suffix that no sheet can have.
    """
    write_sheet(path, [row for query, results in searches for row in sheet_rows([results], query)], heading)


def sheet_rows(searches: Sequence[Results], query: ImageInput) -> list[SheetRow]:
    """Return one row a search, titled with its mode."""
    cell = SheetCell(_picture(query), "query", _short(query) if isinstance(query, str | Path) else "")
    return [
        SheetRow(
            title=results.mode,
            query=cell,
            neighbours=[SheetCell(Path(r.path), f"{r.shown_score:.3f}", _short(r.path)) for r in results],
        )
        for results in searches
    ]


def _short(path: str | Path) -> str:
    return "/".join(Path(path).parts[-2:])


def _picture(query: ImageInput) -> Image.Image | Path:
    if isinstance(query, str | Path):
        return Path(query)
    if isinstance(query, bytes):
        return decode_bytes(query, "the query", DecodeRules())[0]
    return query if isinstance(query, Image.Image) else from_array(query, "the query")
