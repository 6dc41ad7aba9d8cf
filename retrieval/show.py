"""Turn search results into a contact sheet."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from retrieval.engine import ImageInput
from retrieval.images import DecodeRules, decode_bytes, from_array
from retrieval.results import Results
from retrieval.sheet import SheetCell, SheetRow, write_sheet


def write_results_sheet(path: Path, searches: Sequence[Results], query: ImageInput, heading: str = "") -> None:
    """Draw the results of one query, a row a search, as ``path`` (.png, .jpg, .webp or .html).

    Raises:
        UsageError: a suffix that no sheet can have.
    """
    cell = SheetCell(_picture(query), "query", Path(query).name if isinstance(query, str | Path) else "")
    rows = [
        SheetRow(
            title=results.mode,
            query=cell,
            neighbours=[
                SheetCell(Path(r.path), f"{r.shown_score:.3f}", "/".join(Path(r.path).parts[-2:])) for r in results
            ],
        )
        for results in searches
    ]
    write_sheet(path, rows, heading)


def _picture(query: ImageInput) -> Image.Image | Path:
    if isinstance(query, str | Path):
        return Path(query)
    if isinstance(query, bytes):
        return decode_bytes(query, "the query", DecodeRules())[0]
    return query if isinstance(query, Image.Image) else from_array(query, "the query")
