"""Score candidates against queries chunk by chunk, reading the next chunk while one is scored."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retrieval.aas import QKV, AnyReadout, higher_is_closer
from retrieval.arithmetic import Arithmetic
from retrieval.hot import HotRows
from retrieval.scoring import Restore, Scorer, numbers_of
from retrieval.transfer import Upload, begin_upload
from retrieval.vocabulary import LINEAR, Similarity

READ_BYTES = 100 << 20  # of stored tensors fetched at a time, one fetch ahead
READ_ROWS = 512

ReadRows = Callable[[Sequence[int]], Mapping[str, NDArray[Any]]]
"""Rows to the arrays that are stored of them, ``[rows, ...]`` each."""


def as_stored(arrays: Mapping[str, Tensor]) -> QKV:
    """Take arrays that are q, k and v themselves."""
    return QKV(arrays["q"], arrays["k"], arrays["v"])


@dataclass(frozen=True)
class Early:
    """Rows that are being read already."""

    rows: Sequence[int]
    arrays: Future[Upload]

    @classmethod
    def begin(cls, rows: Sequence[int], read: ReadRows, device: torch.device) -> "Early":
        """Begin to read ``rows`` in another thread."""
        pool = ThreadPoolExecutor(1, thread_name_prefix="early")
        early = cls(rows, pool.submit(_fetch, read, device, rows))
        pool.shutdown(wait=False)
        return early


@dataclass(frozen=True)
class Scored:
    """For every query the scores in the order of its rows, and where the time went."""

    scores: Sequence[NDArray[np.float32]]
    read_ms: float  # waiting for tensors; reading behind the scoring costs nothing and is not counted
    score_ms: float


@torch.inference_mode()
def score_rows(
    queries: Sequence[QKV],
    rows: Sequence[Sequence[int]],
    read: ReadRows,
    similarity: Similarity = "cosine",
    readout: AnyReadout = LINEAR,
    restore: Restore = as_stored,
    hot: HotRows | None = None,
    early: Early | None = None,
    arithmetic: Arithmetic | None = None,
) -> Scored:
    """Score each query's ``rows`` against it; a row that several queries want is read once.

    Args:
        queries: one item each, float32, of one shape, on the device that scores.
        rows: for every query, rows of the index in any order; a score does not depend on it.
        read: fetches tensors of rows; called in another thread, one chunk ahead.
        similarity: see :func:`retrieval.aas.aligned_attention_scores`.
        readout: the mode's, or the model's.
        restore: makes Q/K/V of what ``read`` returns.
        hot: rows that are in memory already, and where others are kept; a score does not depend on it.
        early: some of ``rows`` that are being read.
        arithmetic: in place of the device's own.
    """
    takers: dict[int, set[int]] = {}
    for number, wanted in enumerate(rows):
        for row in wanted:
            takers.setdefault(row, set()).add(number)
    if not takers:
        return Scored([np.empty(0, np.float32) for _ in queries], 0.0, 0.0)
    begun = frozenset(early.rows) if early else frozenset()
    rest = [row for row in takers if row not in begun]
    held = {row: found for row in rest if (found := hot.get(row)) is not None} if hot else {}
    chunks = _chunks([row for row in rest if row not in held], numbers_of(queries[0]))
    start = perf_counter()
    scorer = Scorer(queries, takers, similarity, readout, restore, hot, arithmetic)
    read_ms = 0.0
    device = queries[0].q.device
    with ThreadPoolExecutor(1) as pool:
        if early:
            chunks, waiting = [early.rows, *chunks], [early.arrays]
        else:
            waiting = [pool.submit(_fetch, read, device, chunk) for chunk in chunks[:1]]
        scorer.score_held(held)
        for chunk, following in zip(chunks, [*chunks[1:], None], strict=False):
            waited = perf_counter()
            stored = waiting.pop().result().tensors()
            if following is not None:
                waiting.append(pool.submit(_fetch, read, device, following))
            read_ms += 1e3 * (perf_counter() - waited)
            scorer.score(chunk, stored)
    by_row = zip(scorer.scores(), rows, strict=True)
    scores = [np.array([mine[row] for row in wanted], np.float32) for mine, wanted in by_row]
    return Scored(scores, read_ms, 1e3 * (perf_counter() - start) - read_ms)


def _chunks(rows: Sequence[int], numbers: int) -> list[Sequence[int]]:
    size = max(1, min(READ_ROWS, READ_BYTES // (2 * numbers)))
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _fetch(read: ReadRows, device: torch.device, rows: Sequence[int]) -> Upload:
    return begin_upload(read(rows), device)


def closest_first(
    scores: NDArray[np.float32], ids: NDArray[np.int64], similarity: Similarity = "cosine"
) -> NDArray[np.int64]:
    """Return positions from closest to farthest; equal scores are ordered by id, so the order is always the same."""
    keys = -scores if higher_is_closer(similarity) else scores
    order: NDArray[np.int64] = np.lexsort((ids, keys))
    return order
