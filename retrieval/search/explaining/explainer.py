"""Explain scores of an index: the tensors of a query and a candidate, as a search compares them, and their parts."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
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
from retrieval.scoring.outputs import AnyReadout
from retrieval.search.explaining.explanation import BoardExplanation, Correspondence, ExplainedImage, ImageExplanation
from retrieval.search.queries.combining import AWAY, scored_parts
from retrieval.search.queries.picture import ImageInput, Picture
from retrieval.search.queries.query import Query
from retrieval.search.regions.region_views import as_scored, onto_cut_out, small_views
from retrieval.search.results import Result
from retrieval.search.scoring_context import ScoringContext
from retrieval.search.tensors.candidate_tensors import CandidateTensors

CandidateInput = Result | int | ImageInput | Picture
"""What a score is explained for: a result, an item's id, an indexed path, or any image."""

Size = tuple[int, int]


@dataclass(frozen=True)
class _Candidate:
    """What a score is explained for."""

    qkv: QKV  # one item
    size: Size
    path: str | None
    shown: Image.Image | Path


class Explainer:
    """Explains the scores of one question; its tensors are computed once."""

    def __init__(self, context: ScoringContext, mode: str, question: Query) -> None:
        """Compute the tensors of the images of a question or their regions, in the query's role."""
        self._context, self._mode, self._question = context, mode, question
        self._small = small_views(context, (mode,), question.pictures)
        images = [each.image for each in question.pictures] + [view.drawing for view in self._small.values()]
        tensors = context.tensors([self._prepared(image) for image in images], "query", mode)
        self._scored = as_scored(context, mode, question.pictures, self._small, tensors)

    @torch.inference_mode()
    def explain(self, given: CandidateInput, correspondences: int) -> ImageExplanation:
        """Explain one score of the only image, with the strongest ``correspondences``.

        A candidate of the index has the tensors that the index stores or a search would compute; another image has
        those that the index would store.

        Raises:
            UsageError: several images, no such candidate, no tensors of it, or the model's tokens lie on no grid.
            ImageError: another image can't be used.
        """
        if not self._question.is_plain:
            raise UsageError("explain and explain_all split a score of one image; explain_board splits one of several")
        candidate = self._candidate(given)
        return self._explained(0, self._split(0, candidate.qkv), candidate, correspondences)

    @torch.inference_mode()
    def explain_board(self, given: CandidateInput, correspondences: int) -> BoardExplanation:
        """Explain one score of several images; see :meth:`explain`.

        Raises:
            UsageError: as above, or a union of a model whose keys are other tokens.
            ImageError: another image can't be used.
        """
        candidate = self._candidate(given)
        found = self._shares(candidate.qkv)
        images = [self._explained(place, each, candidate, correspondences) for place, each in found.items()]
        score = bounded(sum(each.score for each in found.values()))
        return BoardExplanation(self._mode, score, tuple(images))

    def _shares(self, candidate: QKV) -> dict[int, Explanation]:
        """Return the share of the score that each picture makes, by its place."""
        question, count = self._question, len(self._question.images)
        if question.combine == "union" and count > 1:
            found = self._union_shares(candidate)
        else:
            each = {place: self._split(place, candidate) for place in range(count)}
            if question.combine == "max":
                closest = max(each, key=lambda place: each[place].score)
                found = {closest: each[closest]}
            else:
                total = sum(question.image_weights)
                found = {place: each[place].scaled(question.image_weights[place] / total) for place in each}
        for place, weight in enumerate(question.minus_image_weights, start=count):
            found[place] = self._split(place, candidate).scaled(-AWAY * weight / len(question.minus))
        return found

    def _union_shares(self, candidate: QKV) -> dict[int, Explanation]:
        union = scored_parts(self._question, self._scored)[0]
        how = Comparison(readout=self._readout, directions=union.directions or "both")
        found = explain(union.qkv, candidate, how, union.mask)
        if found.query_pairs is None:
            raise UsageError("the keys of this model are no cells of the picture, so a union has no parts by image")
        if union.directions is not None:
            found = on_both_sides(found, found.pairs)
        counts = [each.qkv.q.shape[3] for each in self._scored[: len(self._question.images)]]
        ends = list(accumulate(counts))
        shares = [slice(end - count, end) for end, count in zip(ends, counts, strict=True)]
        return {place: found.of_tokens(tokens) for place, tokens in enumerate(shares)}

    def _split(self, place: int, candidate: QKV) -> Explanation:
        """Split the score of one picture; a region's over the cells of both pictures, half on each side."""
        region = self._scored[place]
        if region.directions is None:
            return explain(region.qkv, candidate, Comparison(readout=self._readout))
        how = Comparison(readout=self._readout, directions=region.directions)
        found = [explain(view.qkv, candidate, how, view.mask) for view in region.views]
        if found[0].query_pairs is None:
            return found[0]
        pairs = [each.pairs for each in found]
        if region.small is not None:
            view, grid = self._small[place], self._grid(region.qkv, self._shown_size(place))
            small = self._grid(region.small.qkv, view.drawing.size)
            pairs[1] = onto_cut_out(view.box, small, grid) @ pairs[1]
        return on_both_sides(found[0], torch.stack(pairs).mean(dim=0))

    def _explained(
        self, place: int, found: Explanation, candidate: _Candidate, correspondences: int
    ) -> ImageExplanation:
        picture = self._question.pictures[place]
        shown = shown_picture(picture) if picture.region is None else picture.image
        grids = self._grid(self._scored[place].qkv, self._shown_size(place)), self._grid(candidate.qkv, candidate.size)
        return ImageExplanation(
            self._mode,
            bounded(found.score),
            _explained(picture.path, shown, grids[0], found.query_parts),
            _explained(candidate.path, candidate.shown, grids[1], found.candidate_parts),
            strongest(found, grids, correspondences),
            _between_cells(found.query_attention, grids),
        )

    def _candidate(self, given: CandidateInput) -> _Candidate:
        item = find_item(self._context.reader, given)
        if item is not None:
            return _Candidate(self._stored(item), (item.width, item.height), item.uri, Path(item.uri))
        picture = self._read(given)
        size = picture.width, picture.height
        return _Candidate(self._encoded(picture), size, picture.path, shown_picture(picture))

    @property
    def _readout(self) -> AnyReadout:
        return self._context.models.readout(self._mode)

    def _shown_size(self, place: int) -> Size:
        picture = self._question.pictures[place]
        return (picture.width, picture.height) if picture.region is None else picture.image.size

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


def on_both_sides(found: Explanation, pairs: Tensor) -> Explanation:
    """Return an explanation of ``pairs`` of one direction: half of each pair lies on the cell of either picture."""
    half = pairs / 2
    return replace(
        found, query_parts=half.sum(dim=1), candidate_parts=half.sum(dim=0), query_pairs=half, candidate_pairs=half.T
    )


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
    if found.query_pairs is None:
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
