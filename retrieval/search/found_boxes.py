"""Where results have the region that a question asked for."""

from collections.abc import Sequence

import numpy as np
import torch

from retrieval.errors import UsageError
from retrieval.models.mask_tokens import Prepare, as_grid, covered_part, in_picture, prepare_of, token_weights
from retrieval.progress import Cancellation, OnProgress
from retrieval.scoring.aas import QKV
from retrieval.scoring.location import candidate_shares, fullest_box
from retrieval.search.candidate_tensors import CandidateTensors, Scored
from retrieval.search.chunks import Buffers
from retrieval.search.memory_cache import ModeCache
from retrieval.search.queries.picture import Picture
from retrieval.search.scoring_context import ScoringContext
from retrieval.types import Fractions


def as_scored(context: ScoringContext, mode: str, picture: Picture, qkv: QKV) -> Scored:
    """Return a picture as it is scored: a region looks for itself, and its tokens count as its mask says.

    Raises:
        UsageError: a mask, and a mode whose keys are other tokens than its queries.
    """
    if picture.region is None:
        return Scored(qkv)
    if picture.region.mask is None:
        return Scored(qkv, None, "query_to_candidate")
    tokens = qkv.q.shape[3]
    if qkv.k.shape[3] != tokens:
        raise UsageError(f"mode {mode} can't weigh tokens by a mask, since its keys are other tokens: give a box")
    return Scored(qkv, token_weights(_prepare(context, mode), picture.region.mask, tokens), "query_to_candidate")


@torch.inference_mode()
def find_boxes(
    context: ScoringContext,
    mode: str,
    region: Scored,
    rows: Sequence[int],
    cache: ModeCache | None,
    on_progress: OnProgress,
    cancel: Cancellation | None,
) -> dict[int, Fractions]:
    """Return the box, as fractions, where each row of the index has a region; rows without a place are missing.

    Args:
        context: of the index.
        mode: whose tensors are compared.
        region: as it was scored.
        rows: candidates of the question: their tensors were read or computed for its scores.
        cache: the mode's candidates in memory.
        on_progress: hears of tensors that are computed again, because nothing could keep them.
        cancel: ends the computing.
    """
    items = dict(zip(rows, context.reader.items(rows), strict=True))
    sizes = {row: (item.width, item.height) for row, item in items.items()}
    found: dict[int, Fractions] = {}
    prepare = _prepare(context, mode)
    covered = {size: covered_part(prepare, *size) for size in set(sizes.values())}
    tensors = CandidateTensors.begin(context, mode, [np.array(rows, np.int64)], cache, on_progress, cancel)
    buffers = Buffers(1, torch.float32, context.device)
    for source in tensors.sources:
        for chunk in source.chunks():
            for place, row in enumerate(chunk.rows):
                candidate, _ = chunk.load(slice(place, place + 1), buffers)
                box = _box(prepare, region, candidate)
                if box is not None:
                    found[row] = in_picture(box, covered[sizes[row]])
    return found


def _box(prepare: Prepare, region: Scored, candidate: QKV) -> Fractions | None:
    if candidate.k.shape[3] != candidate.q.shape[3]:
        return None  # the keys have no place in the picture
    return fullest_box(as_grid(prepare, candidate_shares(region.qkv, candidate, region.mask)[0]))


def _prepare(context: ScoringContext, mode: str) -> Prepare:
    return prepare_of(context.models.extractor, context.models.targets[mode])
