"""The explanation of one pair's score, on the cells of both pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from retrieval.errors import UsageError
from retrieval.models.token_grid import TokenGrid

Cell = tuple[int, int]
"""(row, column) from the upper left corner, from 0."""

DIGITS = 9  # of numbers in JSON: the sum of 10 000 rounded parts is right within 1e-5


@dataclass(frozen=True, eq=False)
class ExplainedImage:
    """One image of a pair, and the parts of the score that lie on its cells."""

    path: str | None  # absolute; None: the image did not come from a file
    picture: Image.Image | Path  # as it is drawn
    grid: TokenGrid
    parts: NDArray[np.float32]  # [rows, columns]
    other: float  # the part of class and register tokens, which lie on no cell

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "path": self.path,
            "region": [round(side, DIGITS) for side in self.grid.region],
            "map": _rounded(self.parts),
            "other": round(self.other, DIGITS),
        }


@dataclass(frozen=True)
class Correspondence:
    """A cell of the query, a cell of the candidate, and the part of the score that this pair of cells makes."""

    query: Cell
    candidate: Cell
    weight: float

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {"query": list(self.query), "candidate": list(self.candidate), "weight": round(self.weight, DIGITS)}


@dataclass(frozen=True, eq=False)
class ImageExplanation:
    """Where a score comes from: the parts of both images' cells and other tokens sum to it.

    Parts of A→B lie on the query's cells, parts of B→A on the candidate's. A pair of cells has the weight that the
    attention of one to the other adds to these parts, see :mod:`retrieval.scoring.explanation`. The weights of all
    pairs of tokens sum to the score, too.
    """

    mode: str
    score: float  # as a search gives it
    query: ExplainedImage
    candidate: ExplainedImage
    correspondences: Sequence[Correspondence]  # weights above 0, the strongest first; empty if ``attention`` is None
    # float32 [query rows, query columns, candidate rows, candidate columns]: where each cell of the query attends; sums
    # over the last two axes are 1 less the attention to class tokens. None: the model's keys are other tokens
    attention: NDArray[np.float32] | None

    @property
    def query_map(self) -> NDArray[np.float32]:
        """The parts on the query's cells, ``[rows, columns]``."""
        return self.query.parts

    @property
    def candidate_map(self) -> NDArray[np.float32]:
        """The parts on the candidate's cells, ``[rows, columns]``."""
        return self.candidate.parts

    def where(self, x: float, y: float) -> NDArray[np.float32]:
        """Return where one point of the query attends in the candidate, float32 ``[rows, columns]``.

        Args:
            x: from the left, as a fraction of the query picture's width.
            y: from the top, as a fraction of its height.

        Raises:
            UsageError: the point lies outside the part that the model sees, or this model's cells attend to no cells.
        """
        if self.attention is None:
            raise UsageError("the keys of this model are no cells of the picture, so a point attends to no place")
        cell = self.query.grid.cell_at(x, y)
        if cell is None:
            left, top, right, bottom = self.query.grid.region
            seen = f"x from {left:.3f} to {right:.3f} and y from {top:.3f} to {bottom:.3f}"
            raise UsageError(f"the point ({x}, {y}) lies outside the part that the model sees: {seen}")
        attended: NDArray[np.float32] = self.attention[cell]
        return attended

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values; USAGE.md describes the fields."""
        return {
            "mode": self.mode,
            "score": self.score,
            "query": self.query.to_dict(),
            "candidate": self.candidate.to_dict(),
            "correspondences": [pair.to_dict() for pair in self.correspondences],
        }


@dataclass(frozen=True, eq=False)
class BoardExplanation:
    """Where the score of a question of several images comes from: the scores of ``images`` sum to it.

    Each image's explanation is that of its share: its score times its weight, or what its tokens make of a union.
    Images to move away from come last, with scores below 0. The closest of several images alone has a share.
    """

    mode: str
    score: float  # as a search gives it
    images: Sequence[ImageExplanation]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {"mode": self.mode, "score": self.score, "images": [image.to_dict() for image in self.images]}


def _rounded(values: NDArray[np.float32]) -> list[list[float]]:
    return [[round(value, DIGITS) for value in row] for row in values.tolist()]
