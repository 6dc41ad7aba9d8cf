"""Score candidates against a query chunk by chunk, reading the next chunk while one is scored."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retrieval.aas import QKV, AnyReadout, aligned_attention_scores, attention_output, higher_is_closer
from retrieval.vocabulary import LINEAR, Similarity

READ_BYTES = 100 << 20  # of stored tensors fetched at a time, one fetch ahead
READ_ROWS = 512
# Scored at a time, as float32. One SD 1.5 image is best: more leave the processor's caches, and torch returns blocks
# beyond 32 MB to the system after every use, whose page faults then cost more than the arithmetic (DESIGN.md, log).
STEP_BYTES = 8 << 20
STEP_ROWS = 32

ReadRows = Callable[[Sequence[int]], Mapping[str, NDArray[Any]]]
"""Rows to the arrays that are stored of them, ``[rows, ...]`` each."""

Restore = Callable[[Mapping[str, Tensor]], QKV]
"""Stored arrays, widened to float32 on the device that scores, to Q/K/V."""


def as_stored(arrays: Mapping[str, Tensor]) -> QKV:
    """Take arrays that are q, k and v themselves."""
    return QKV(arrays["q"], arrays["k"], arrays["v"])


@dataclass(frozen=True)
class Scored:
    """Scores in the order of the rows given, and where the time went."""

    scores: NDArray[np.float32]
    read_ms: float  # waiting for tensors; reading behind the scoring costs nothing and is not counted
    score_ms: float


@torch.inference_mode()
def score_rows(
    query: QKV,
    rows: Sequence[int],
    read: ReadRows,
    similarity: Similarity = "cosine",
    readout: AnyReadout = LINEAR,
    restore: Restore = as_stored,
) -> Scored:
    """Score ``rows`` against ``query``.

    Args:
        query: one item, float32, on the device that scores.
        rows: rows of the index, any order; a score does not depend on it.
        read: fetches tensors of rows; called in another thread, one chunk ahead.
        similarity: see :func:`retrieval.aas.aligned_attention_scores`.
        readout: the mode's, or the model's.
        restore: makes Q/K/V of what ``read`` returns.
    """
    numbers = sum(tensor[0].numel() for tensor in (query.q, query.k, query.v))
    size = max(1, min(READ_ROWS, READ_BYTES // (2 * numbers)))
    chunks = [rows[start : start + size] for start in range(0, len(rows), size)]
    scorer = _Scorer(query, similarity, readout, restore, max(1, min(STEP_ROWS, STEP_BYTES // (4 * numbers))))
    scores: list[NDArray[np.float32]] = []
    read_ms = score_ms = 0.0
    with ThreadPoolExecutor(1) as pool:
        waiting = [pool.submit(read, chunk) for chunk in chunks[:1]]
        for following in [*chunks[1:], None] if chunks else []:
            start = perf_counter()
            stored = waiting.pop().result()
            if following is not None:
                waiting.append(pool.submit(read, following))
            loaded = perf_counter()
            scores.append(scorer.score(stored))
            read_ms += 1e3 * (loaded - start)
            score_ms += 1e3 * (perf_counter() - loaded)
    return Scored(np.concatenate(scores) if scores else np.empty(0, np.float32), read_ms, score_ms)


class _Scorer:
    """Scores stored rows a few at a time, in float32 buffers that are used again and again."""

    def __init__(self, query: QKV, similarity: Similarity, readout: AnyReadout, restore: Restore, step: int) -> None:
        self._query, self._similarity, self._readout, self._step = query, similarity, readout, step
        self._restore = restore
        self._own = attention_output(query.q, query.k, query.v)
        self._buffers: dict[str, Tensor] = {}

    def score(self, stored: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Return the score of every row, float32 ``[rows]``."""
        count = len(next(iter(stored.values())))
        self._buffers = self._buffers or {
            name: self._query.q.new_empty((self._step, *array.shape[1:]), dtype=torch.float32)
            for name, array in stored.items()
        }
        steps = [
            self._score_step(stored, start, min(start + self._step, count)) for start in range(0, count, self._step)
        ]
        return np.concatenate(steps)

    def _score_step(self, stored: Mapping[str, NDArray[Any]], start: int, end: int) -> NDArray[np.float32]:
        widened = {
            name: buffer[: end - start].copy_(torch.from_numpy(stored[name][start:end]))
            for name, buffer in self._buffers.items()
        }
        candidates = self._restore(widened)
        scores = aligned_attention_scores(
            self._query, candidates, self._similarity, query_output=self._own, readout=self._readout
        )
        result: NDArray[np.float32] = scores.cpu().numpy()
        return result


def closest_first(
    scores: NDArray[np.float32], ids: NDArray[np.int64], similarity: Similarity = "cosine"
) -> NDArray[np.int64]:
    """Return positions from closest to farthest; equal scores are ordered by id, so the order is always the same."""
    keys = -scores if higher_is_closer(similarity) else scores
    order: NDArray[np.int64] = np.lexsort((ids, keys))
    return order
