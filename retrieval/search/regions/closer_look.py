"""A closer look at where results have a region: that part of their files, cut out and encoded at full size.

The stored tokens of a candidate are those of the whole picture, so a small subject has few of them. The best results'
files give the found box every token of the model, as the question's own region has.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image

from retrieval.errors import ImageError
from retrieval.images.decoding import read_image
from retrieval.models.modes import Outputs
from retrieval.progress import Cancellation
from retrieval.scoring.aas import Comparison, PreparedQuery, bounded, score_queries
from retrieval.search.queries.cutting import in_detail
from retrieval.search.queries.region import Box, pixels_of
from retrieval.search.results import Result
from retrieval.search.scoring_context import ScoringContext
from retrieval.search.tensors.candidate_tensors import Scored


@torch.inference_mode()
def look_closer(
    context: ScoringContext,
    mode: str,
    region: Scored,
    results: Sequence[Result],
    count: int,
    cancel: Cancellation | None,
) -> tuple[Result, ...]:
    """Return results, the first ``count`` of them ordered by the score of the region with their found box alone.

    That score becomes their ``order_key``. A result without a box, or whose file is gone or has changed, keeps None
    and stands behind those that have one.

    Args:
        context: of the index.
        mode: whose tensors are compared.
        region: as it was scored; here at full size.
        results: of the question, closest first, with their found boxes.
        count: how many are looked at.
        cancel: ends the work between batches.

    Raises:
        CancelledError: it was stopped.
    """
    how = Comparison(readout=context.models.readout(mode), directions="query_to_candidate")
    query, outputs = PreparedQuery.of(region.qkv, how, region.mask), Outputs((mode,))
    seen: list[Result] = []
    with ThreadPoolExecutor(context.workers, thread_name_prefix="closer") as threads:
        for start in range(0, min(count, len(results)), context.batch_size):
            some = results[start : min(count, start + context.batch_size)]
            cuts = list(threads.map(lambda result: _cut_out(context, result), some))
            inputs = context.prepare([cut for cut in cuts if cut is not None], outputs)
            scores: Iterator[float] = iter(())
            if inputs:
                scores = iter(score_queries([query], context.tensors(inputs, "gallery", mode))[0].tolist())
            for result, cut in zip(some, cuts, strict=True):
                seen.append(replace(result, order_key=None if cut is None else round(bounded(next(scores)), 6)))
            if cancel is not None:
                cancel.check()
    seen.sort(key=lambda result: (result.order_key is None, -(result.order_key or 0.0), result.rank))
    return tuple(replace(result, rank=rank) for rank, result in enumerate((*seen, *results[count:]), start=1))


def _cut_out(context: ScoringContext, result: Result) -> Image.Image | None:
    """Return the found box of a result's file in the detail of a query's; None if there is none, or another file."""
    if result.found_box is None:
        return None
    try:
        image, facts = read_image(Path(result.path), in_detail(context.models.rules, Box(*result.found_box)))
    except ImageError:
        return None
    return image.crop(pixels_of(result.found_box, image.size)) if facts.sha256 == result.sha256 else None
