"""Explain scores of an index: the tensors of a query and a candidate, as a search compares them, and their parts."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from index_store.catalog import Item, absolute_uri
from index_store.lookup import locate_image
from index_store.reader import IndexReader
from retrieval.devices.transfer import to_device
from retrieval.errors import ModelError, UsageError
from retrieval.models.modes import Outputs
from retrieval.models.token_grid import TokenGrid, grid_of
from retrieval.scoring.aas import QKV, Comparison, bounded
from retrieval.scoring.explanation import Explanation, explain
from retrieval.search.explaining.explanation import Correspondence, ExplainedImage, ImageExplanation
from retrieval.search.queries.picture import ImageInput, Picture
from retrieval.search.region_views import as_scored, onto_cut_out, small_views
from retrieval.search.results import Result
from retrieval.search.scoring_context import ScoringContext
from retrieval.search.tensors.candidate_tensors import CandidateTensors

CandidateInput = Result | int | ImageInput | Picture
"""What a score is explained for: a result, an item's id, an indexed path, or any image."""

Size = tuple[int, int]


class Explainer:
    """Explains the scores of one query; its tensors are computed once."""

    def __init__(self, context: ScoringContext, mode: str, query: Picture) -> None:
        """Compute the tensors of a query or its region, in the query's role."""
        self._context, self._mode, self._picture = context, mode, query
        small = small_views(context, mode, [query])
        images = [query.image, *(view.drawing for view in small.values())]
        tensors = context.tensors([self._prepared(image) for image in images], "query", mode)
        (self._scored,) = as_scored(context, mode, [query], small, tensors)
        self._small = small.get(0)

    @torch.inference_mode()
    def explain(self, given: CandidateInput, correspondences: int) -> ImageExplanation:
        """Explain one score, with the strongest ``correspondences``.

        A candidate of the index has the tensors that the index stores or a search would compute; another image has
        those that the index would store.

        Raises:
            UsageError: no such candidate, its tensors can't be had, or the model's tokens lie on no grid.
            ImageError: another image can't be used.
        """
        item = find_item(self._context.reader, given)
        if item is None:
            picture = self._read(given)
            candidate, size, path = self._encoded(picture), (picture.width, picture.height), picture.path
            shown = shown_picture(picture)
        else:
            candidate, size, path = self._stored(item), (item.width, item.height), item.uri
            shown = Path(item.uri)
        found = self._split(candidate)
        grids = self._grid(self._scored.qkv, self._shown_size), self._grid(candidate, size)
        return ImageExplanation(
            self._mode,
            bounded(found.score),
            _explained(self._picture.path, self._shown_query, grids[0], found.query_parts),
            _explained(path, shown, grids[1], found.candidate_parts),
            strongest(found, grids, correspondences),
            _between_cells(found.query_attention, grids),
        )

    @property
    def _shown_query(self) -> Image.Image | Path:
        return shown_picture(self._picture) if self._picture.region is None else self._picture.image

    @property
    def _shown_size(self) -> Size:
        whole = self._picture.width, self._picture.height
        return whole if self._picture.region is None else self._picture.image.size

    def _split(self, candidate: QKV) -> Explanation:
        """Split the score of one candidate; a region's over the cells of both pictures, half on each side."""
        region, readout = self._scored, self._context.models.readout(self._mode)
        if region.directions is None:
            return explain(region.qkv, candidate, Comparison(readout=readout))
        how = Comparison(readout=readout, directions=region.directions)
        found = [explain(view.qkv, candidate, how, view.mask) for view in region.views]
        if found[0].query_attention is None:
            return found[0]
        pairs = [each.pairs for each in found]
        if region.small is not None and self._small is not None:
            small = self._grid(region.small.qkv, self._small.drawing.size)
            pairs[1] = onto_cut_out(self._small.box, small, self._grid(region.qkv, self._shown_size)) @ pairs[1]
        joined = torch.stack(pairs).mean(dim=0) / 2
        parts = joined.sum(dim=1), joined.sum(dim=0)
        return replace(found[0], query_parts=parts[0], candidate_parts=parts[1], given_pairs=2 * joined)

    def _prepared(self, image: Image.Image) -> dict[str, NDArray[np.uint8]]:
        return dict(self._context.models.prepare(image, Outputs((self._mode,))))

    def _grid(self, qkv: QKV, size: Size) -> TokenGrid:
        return grid_of(self._context.models.extractor, qkv.q.shape[3], size)

    def _read(self, given: CandidateInput) -> Picture:
        assert not isinstance(given, Result | int)  # these are items of the index
        return given if isinstance(given, Picture) else Picture.read(given, self._context.models.rules)

    def _stored(self, item: Item) -> QKV:
        """Return the tensors of an item as a search scores them."""
        (row,) = self._context.reader.find("id", item.id)
        begun = CandidateTensors.begin(self._context, self._mode, [np.array([row])], None)
        found = begun.load()
        if row not in found:
            message = f"{item.uri}: its {self._mode} tensors are not in the index, and the file is gone or has changed"
            raise UsageError(message, advice="update-the-index")
        return found[row]

    def _encoded(self, picture: Picture) -> QKV:
        """Return the tensors of an image outside the index as the index would store them."""
        stored = self._context.encode_stored([self._prepared(picture.image)], Outputs((self._mode,)))
        if stored.unusable:
            raise ModelError("the model gives numbers for the candidate that can't be stored; no score is made")
        arrays = stored.tensors[self._mode].items()
        device = self._context.device
        return self._context.decoder(self._mode)({name: to_device(array, device).float() for name, array in arrays})


def find_item(reader: IndexReader, given: CandidateInput) -> Item | None:
    """Return the item of the index that ``given`` means; None: it is another image.

    Raises:
        UsageError: nothing has this name or id, or several items do.
    """
    if isinstance(given, Result | int):
        number = given.id if isinstance(given, Result) else given
        rows = reader.find("id", number)
        if not rows:
            raise UsageError(f"the index has no item with the id {number}")
        return reader.items(rows)[0]
    if isinstance(given, str | Path):
        path = locate_image(reader, os.fspath(given))
        rows = reader.find("uri", absolute_uri(path))
        return reader.items(rows)[0] if rows else None
    return None


def shown_picture(picture: Picture) -> Image.Image | Path:
    """Return a picture's file, which may have more pixels than were decoded, or else its image."""
    return picture.image if picture.path is None else Path(picture.path)


def strongest(found: Explanation, grids: tuple[TokenGrid, TokenGrid], count: int) -> Sequence[Correspondence]:
    """Return the pairs of cells that make the largest parts of the score, above 0; none if keys are other tokens."""
    if found.query_attention is None:
        return ()
    weights = found.pairs[grids[0].before :, grids[1].before :]
    best = weights.flatten().topk(min(count, weights.numel()))
    return tuple(
        Correspondence(_cell(place // weights.shape[1], grids[0]), _cell(place % weights.shape[1], grids[1]), weight)
        for weight, place in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        if weight > 0
    )


def _cell(number: int, grid: TokenGrid) -> tuple[int, int]:
    row, column = divmod(number, grid.columns)
    return row, column


def _explained(path: str | None, picture: Image.Image | Path, grid: TokenGrid, parts: Tensor) -> ExplainedImage:
    cells = grid.cells(parts).numpy()
    return ExplainedImage(path, picture, grid, cells, float(parts[: grid.before].sum()))


def _between_cells(attention: Tensor | None, grids: tuple[TokenGrid, TokenGrid]) -> NDArray[np.float32] | None:
    if attention is None:
        return None
    cells = attention[grids[0].before :, grids[1].before :]
    shape = [side for grid in grids for side in (grid.rows, grid.columns)]
    found: NDArray[np.float32] = cells.reshape(shape).numpy()
    return found
