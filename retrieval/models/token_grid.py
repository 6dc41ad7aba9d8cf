"""Where the tokens of a model lie in a picture."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from retrieval.errors import UsageError
from retrieval.images.preprocessing import WHOLE, Region
from retrieval.types import Fractions

if TYPE_CHECKING:  # a client has grids in its explanations, and no torch
    from torch import Tensor

    from retrieval.models.protocols import AttentionExtractor


@dataclass(frozen=True)
class TokenGrid:
    """Cells of equal size, row by row; a few tokens may come before those of the cells."""

    rows: int
    columns: int
    before: int = 0  # class and register tokens, which lie on no cell
    region: Region = WHOLE  # the part of the picture that the cells cover

    @property
    def tokens(self) -> int:
        """How many tokens there are."""
        return self.before + self.rows * self.columns

    def cells(self, values: "Tensor") -> "Tensor":
        """Return ``values [tokens]`` of one picture as ``[rows, columns]``, without those of the tokens before."""
        return values[self.before :].reshape(self.rows, self.columns)

    def in_picture(self, box: Fractions) -> Fractions:
        """Return a box of the grid (x, y, width, height in fractions) as one of the picture, cut at its edges."""
        left, top, right, bottom = self.region
        across, down = right - left, bottom - top
        x, end = (min(max(left + edge * across, 0.0), 1.0) for edge in (box[0], box[0] + box[2]))
        y, foot = (min(max(top + edge * down, 0.0), 1.0) for edge in (box[1], box[1] + box[3]))
        return x, y, end - x, foot - y

    def cell_at(self, x: float, y: float) -> tuple[int, int] | None:
        """Return (row, column) of the cell at a point, in fractions of the picture from its upper left corner.

        None: the point lies in a part that the model crops away.
        """
        left, top, right, bottom = self.region
        across, down = (x - left) / (right - left), (y - top) / (bottom - top)
        if not (0 <= across <= 1 and 0 <= down <= 1):
            return None
        return min(int(down * self.rows), self.rows - 1), min(int(across * self.columns), self.columns - 1)


@runtime_checkable
class PlacedTokens(Protocol):
    """An AttentionExtractor that says where its tokens lie, because it crops pictures or has class tokens."""

    def token_grid(self, width: int, height: int) -> TokenGrid:
        """Return the grid of a picture of ``width`` x ``height`` pixels."""


def grid_of(extractor: "AttentionExtractor", tokens: int, size: tuple[int, int]) -> TokenGrid:
    """Return where the ``tokens`` of one picture lie; without a word of the model, on a square over all of it.

    Args:
        extractor: the model.
        tokens: of its queries.
        size: (width, height) of the picture, pixels.

    Raises:
        UsageError: the tokens fill no such grid.
    """
    side = math.isqrt(tokens)
    grid = extractor.token_grid(*size) if isinstance(extractor, PlacedTokens) else TokenGrid(side, side)
    if grid.tokens != tokens:
        raise UsageError(f"the {tokens} tokens of this model lie on no grid of cells, so its scores can't be explained")
    return grid
