"""Draw explanations as one picture, a row a pair; a board has a row for each of its images."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from retrieval.drawing.pair_rows import HeatedPicture, PairRow, draw_pairs
from retrieval.drawing.sheet_file import write_picture
from retrieval.errors import UsageError
from retrieval.search.explaining.explanation import BoardExplanation, ExplainedImage, ImageExplanation


def draw_explanations(path: str | Path, explanations: Sequence[ImageExplanation | BoardExplanation]) -> None:
    """Draw each explained pair in a row: pictures, heat maps of the parts, and lines between cells that correspond.

    Args:
        path: a .png, .jpg, .jpeg or .webp.
        explanations: one at least.

    Raises:
        UsageError: nothing to draw, or another suffix.
        DiffSimError: the file can't be written.
    """
    write_picture(Path(path), explanation_picture(explanations))


def explanation_picture(explanations: Sequence[ImageExplanation | BoardExplanation]) -> Image.Image:
    """Return the picture that :func:`draw_explanations` writes; a UsageError if there is nothing to draw."""
    if not explanations:
        raise UsageError("no explanation was given to draw")
    rows = [row for number, each in enumerate(explanations, start=1) for row in _rows(number, each)]
    return draw_pairs(rows, "part of the score by cell", "lines: the strongest pairs of cells")


def _rows(number: int, explanation: ImageExplanation | BoardExplanation) -> list[PairRow]:
    if isinstance(explanation, ImageExplanation):
        return [_row(str(number), explanation)]
    shares = f"of {explanation.score:.4f}"
    return [_row(f"{number}, image {place} {shares}", each) for place, each in enumerate(explanation.images, start=1)]


def _row(number: str, explanation: ImageExplanation) -> PairRow:
    query, candidate = explanation.query, explanation.candidate
    shares = f"query's cells {query.parts.sum():.4f} + candidate's cells {candidate.parts.sum():.4f}"
    other = query.other + candidate.other
    if query.grid.before:
        shares += f" + class and register tokens {other:.4f}"
    title = f"{number}   {explanation.mode} {explanation.score:.4f} = {shares}"
    if not explanation.correspondences:
        title += "; no lines: the keys of this model are no cells"
    links = [(pair.query, pair.candidate, pair.weight) for pair in explanation.correspondences]
    return PairRow(title, _heated(query, "query"), _heated(candidate, ""), links)


def _heated(image: ExplainedImage, otherwise: str) -> HeatedPicture:
    name = otherwise if image.path is None else "/".join(Path(image.path).parts[-2:])
    return HeatedPicture(image.picture, image.parts, image.grid.region, name)
