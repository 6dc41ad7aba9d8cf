"""Regions of questions as they are scored: which pictures are encoded for them, and how their tokens count."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from PIL import Image
from torch import Tensor

from retrieval.errors import UsageError
from retrieval.models.mask_tokens import prepare_of, token_weights
from retrieval.models.modes import Outputs
from retrieval.models.token_grid import TokenGrid, grid_of
from retrieval.scoring.aas import QKV
from retrieval.scoring.subject import subject_box
from retrieval.search.queries.cutting import cut_subject
from retrieval.search.queries.picture import Picture
from retrieval.search.queries.query import Query
from retrieval.search.queries.small_view import SmallView, small_view
from retrieval.search.scoring_context import ScoringContext
from retrieval.search.tensors.candidate_tensors import Scored
from retrieval.types import Fractions

Small = dict[int, SmallView]
"""The small drawings of regions, by the picture's position."""


def small_views(context: ScoringContext, modes: Sequence[str], pictures: Sequence[Picture]) -> Small:
    """Return the small drawings of those of ``pictures`` that are regions; none if none of the modes use them."""
    if not context.small_modes.intersection(modes):
        return {}
    regions = ((place, picture, picture.region) for place, picture in enumerate(pictures))
    return {place: small_view(picture, region) for place, picture, region in regions if region is not None}


def as_scored(context: ScoringContext, mode: str, pictures: Sequence[Picture], small: Small, qkv: QKV) -> list[Scored]:
    """Return pictures as they are scored: a region looks for itself, and its tokens count as its mask says.

    Args:
        context: of the index.
        mode: whose tensors are scored.
        pictures: of all questions.
        small: of ``pictures``; modes whose regions ask at full size alone pass over them.
        qkv: one item for every picture, then one for every small drawing.

    Raises:
        UsageError: a mask, and a mode whose keys are other tokens than its queries.
    """
    numbers = {place: number for number, place in enumerate(small, start=len(pictures))}
    scored = []
    for place, picture in enumerate(pictures):
        own = qkv[place : place + 1]
        if picture.region is None:
            scored.append(Scored(own))
            continue
        weights = None
        if picture.region.mask is not None:
            weights = _weights(context, mode, picture.image.size, picture.region.mask, own, 1.0)
        region = Scored(own, weights, "query_to_candidate")
        if mode in context.small_modes and place in small and own.k.shape[3] == own.q.shape[3]:
            view = small[place]
            drawn = qkv[numbers[place] : numbers[place] + 1]
            on_region = _weights(context, mode, view.drawing.size, view.mask, drawn, 0.0)
            region = replace(region, small=Scored(drawn, on_region, "query_to_candidate"))
        scored.append(region)
    return scored


def _weights(
    context: ScoringContext, mode: str, size: tuple[int, int], mask: Image.Image, qkv: QKV, others: float
) -> Tensor:
    """Return the weight of each token of a masked picture; tokens that lie on no cell get ``others``."""
    tokens = qkv.q.shape[3]
    if qkv.k.shape[3] != tokens:
        raise UsageError(f"mode {mode} can't weigh tokens by a mask, since its keys are other tokens: give a box")
    extractor, target = context.models.extractor, context.models.targets[mode]
    grid = grid_of(extractor, tokens, size)
    weights = token_weights(prepare_of(extractor, target), mask, grid)
    weights[: grid.before] = others
    return weights


def with_subjects(context: ScoringContext, mode: str, question: Query) -> Query:
    """Return a question that was read with the subjects cut out that it asks for."""
    if not any(picture.seeks_subject for picture in question.pictures):
        return question
    count = len(question.images)
    pictures = [_cut(context, mode, picture) if picture.seeks_subject else picture for picture in question.pictures]
    return replace(question, images=tuple(pictures[:count]), minus=tuple(pictures[count:]))


def _cut(context: ScoringContext, mode: str, picture: Picture) -> Picture:
    prepared = context.prepare([picture.image], Outputs((mode,)))
    q = context.tensors(prepared, "query", mode).q[0]  # [branches, heads, tokens, head_dim]
    grid = grid_of(context.models.extractor, q.shape[2], picture.image.size)
    tokens = q.movedim(2, 0).flatten(1)[grid.before :].reshape(grid.rows, grid.columns, -1)
    box = subject_box(tokens)
    return cut_subject(picture, None if box is None else grid.in_picture(box))


def onto_cut_out(box: Fractions, small: TokenGrid, cut_out: TokenGrid) -> Tensor:
    """Return the share of each token of a small drawing on each token of the cut-out, ``[cut-out's, drawing's]``.

    Columns sum to 1: a token's share goes to the cells below it, or evenly to all where none is.

    Args:
        box: of the region in the drawing.
        small: of the drawing.
        cut_out: of the region.
    """
    down = _overlaps(box[1], box[3], small, cut_out, 1)
    across = _overlaps(box[0], box[2], small, cut_out, 0)
    shares = torch.zeros(cut_out.tokens, small.tokens)
    shares[cut_out.before :, small.before :] = torch.kron(down, across)
    sums = shares.sum(dim=0)
    shares[cut_out.before :, sums == 0] = 1
    return shares / shares.sum(dim=0)


def _overlaps(start: float, length: float, small: TokenGrid, cut_out: TokenGrid, axis: int) -> Tensor:
    """Return how much of each cell of the drawing lies on each cell of the cut-out, along x (0) or y (1)."""

    def edges(grid: TokenGrid) -> Tensor:
        first, last = grid.region[axis], grid.region[axis + 2]
        return first + (last - first) * torch.linspace(0, 1, ((grid.columns, grid.rows)[axis]) + 1)

    mine, theirs = edges(cut_out), (edges(small) - start) / length
    ends = torch.minimum(mine[1:, None], theirs[None, 1:])
    return (ends - torch.maximum(mine[:-1, None], theirs[None, :-1])).clamp_min(0)
