"""Where results have the region that a question asked for."""

from collections.abc import Sequence

import numpy as np
import torch

from retrieval.models.token_grid import TokenGrid, grid_of
from retrieval.progress import Cancellation, OnProgress
from retrieval.scoring.aas import QKV
from retrieval.scoring.location import candidate_shares, fullest_box
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
    buffers = Buffers(1, torch.float32, context.device)
    for source in tensors.sources:
        for chunk in source.chunks():
            for place, row in enumerate(chunk.rows):
                candidate, _ = chunk.load(slice(place, place + 1), buffers)
                if candidate.k.shape[3] != candidate.q.shape[3]:
                    continue  # the keys have no place in the picture
                grid = grid_of(context.models.extractor, candidate.q.shape[3], sizes[row])
                box = _box(grid, region, candidate)
                if box is not None:
                    found[row] = box
    return found


def _box(grid: TokenGrid, region: Scored, candidate: QKV) -> Fractions | None:
    box = fullest_box(grid.cells(candidate_shares(region.qkv, candidate, region.mask)[0]))
    return None if box is None else grid.in_picture(box)
