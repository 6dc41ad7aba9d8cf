"""Where results have the region that a question asked for."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from retrieval.models.token_grid import grid_of
from retrieval.progress import Cancellation, OnProgress
from retrieval.scoring.location import candidate_shares, fullest_box
from retrieval.search.reranking import step_rows
from retrieval.search.scoring_context import ScoringContext
from retrieval.search.tensors.candidate_tensors import CandidateTensors, Scored
from retrieval.search.tensors.chunks import Buffers
from retrieval.search.tensors.memory_cache import ModeCache
from retrieval.types import Fractions


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
    region = region.small or region  # subjects of candidates are small more often than not
    items = dict(zip(rows, context.reader.items(rows), strict=True))
    sizes = {row: (item.width, item.height) for row, item in items.items()}
    found: dict[int, Fractions] = {}
    tensors = CandidateTensors.begin(context, mode, [np.array(rows, np.int64)], cache, on_progress, cancel)
    step = step_rows(region.qkv)
    buffers = Buffers(step, torch.float32, context.device)
    for source in tensors.sources:
        for chunk in source.chunks():
            for start in range(0, len(chunk.rows), step):
                part = slice(start, start + step)
                candidates, _ = chunk.load(part, buffers)
                if candidates.k.shape[3] == candidates.q.shape[3]:  # else the keys have no place in the picture
                    shares = candidate_shares(region.qkv, candidates, region.mask).cpu()
                    found |= _boxes(context, {row: sizes[row] for row in chunk.rows[part]}, shares)
    return found


def _boxes(context: ScoringContext, sizes: Mapping[int, tuple[int, int]], shares: Tensor) -> dict[int, Fractions]:
    """Return the boxes of rows, for the sizes of their pictures and ``shares [rows, tokens]``."""
    boxes: dict[int, Fractions] = {}
    for (row, size), own in zip(sizes.items(), shares, strict=True):
        grid = grid_of(context.models.extractor, len(own), size)
        box = fullest_box(grid.cells(own))
        if box is not None:
            boxes[row] = grid.in_picture(box)
    return boxes
