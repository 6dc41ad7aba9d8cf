"""Score candidates against a query chunk by chunk, reading the next chunk while one is scored."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retrieval.aas import QKV, AnyReadout, aligned_attention_scores, attention_output, higher_is_closer
from retrieval.hot import HotRow, HotRows
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
class Early:
    """Rows that are being read already."""

    rows: Sequence[int]
    arrays: Future[Mapping[str, NDArray[Any]]]

    @classmethod
    def begin(cls, rows: Sequence[int], read: ReadRows) -> "Early":
        """Begin to read ``rows`` in another thread."""
        pool = ThreadPoolExecutor(1, thread_name_prefix="early")
        early = cls(rows, pool.submit(read, rows))
        pool.shutdown(wait=False)
        return early


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
    hot: HotRows | None = None,
    early: Early | None = None,
) -> Scored:
    """Score ``rows`` against ``query``.

    Args:
        query: one item, float32, on the device that scores.
        rows: rows of the index, any order; a score does not depend on it.
        read: fetches tensors of rows; called in another thread, one chunk ahead.
        similarity: see :func:`retrieval.aas.aligned_attention_scores`.
        readout: the mode's, or the model's.
        restore: makes Q/K/V of what ``read`` returns.
        hot: rows that are in memory already, and where others are kept; a score does not depend on it.
        early: some of ``rows`` that are being read.
    """
    numbers = sum(tensor[0].numel() for tensor in (query.q, query.k, query.v))
    size = max(1, min(READ_ROWS, READ_BYTES // (2 * numbers)))
    begun = frozenset(early.rows) if early else frozenset()
    rest = [row for row in rows if row not in begun]
    held = {row: found for row in rest if (found := hot.get(row)) is not None} if hot else {}
    cold = [row for row in rest if row not in held]
    chunks: list[Sequence[int]] = [cold[start : start + size] for start in range(0, len(cold), size)]
    scorer = _Scorer(query, similarity, readout, restore, max(1, min(STEP_ROWS, STEP_BYTES // (4 * numbers))), hot)
    with ThreadPoolExecutor(1) as pool:
        if early:
            chunks, waiting = [early.rows, *chunks], [early.arrays]
        else:
            waiting = [pool.submit(read, chunk) for chunk in chunks[:1]]
        start = perf_counter()
        scores = dict(zip(held, scorer.score_held(list(held.values())), strict=True))
        read_ms, score_ms = 0.0, 1e3 * (perf_counter() - start)
        for chunk, following in zip(chunks, [*chunks[1:], None], strict=False):
            start = perf_counter()
            stored = waiting.pop().result()
            if following is not None:
                waiting.append(pool.submit(read, following))
            loaded = perf_counter()
            scores |= zip(chunk, scorer.score(chunk, stored), strict=True)
            read_ms += 1e3 * (loaded - start)
            score_ms += 1e3 * (perf_counter() - loaded)
    return Scored(np.array([scores[row] for row in rows], np.float32), read_ms, score_ms)


class _Scorer:
    """Scores rows a few at a time, in float32 buffers that are used again and again."""

    def __init__(
        self,
        query: QKV,
        similarity: Similarity,
        readout: AnyReadout,
        restore: Restore,
        step: int,
        hot: HotRows | None,
    ) -> None:
        self._query, self._similarity, self._readout, self._step = query, similarity, readout, step
        self._restore, self._hot = restore, hot
        self._own = attention_output(query.q, query.k, query.v)
        self._buffers: dict[str, Tensor] = {}

    def score(self, rows: Sequence[int], stored: Mapping[str, NDArray[Any]]) -> list[float]:
        """Return the score of every one of ``rows``, whose arrays as stored are given."""
        found: list[float] = []
        for start in range(0, len(rows), self._step):
            step = rows[start : start + self._step]
            parts = {name: torch.from_numpy(array[start : start + len(step)]) for name, array in stored.items()}
            widened = {name: self._buffer(name, part.shape)[: len(step)].copy_(part) for name, part in parts.items()}
            candidates = self._restore(widened)
            outputs = attention_output(candidates.q, candidates.k, candidates.v)
            found += self._compare(candidates, outputs)
            if self._hot:
                self._hot.put(step, candidates, outputs)
        return found

    def score_held(self, held: Sequence[HotRow]) -> list[float]:
        """Return the score of every row in memory."""
        found: list[float] = []
        for start in range(0, len(held), self._step):
            step = held[start : start + self._step]
            q, k, v, outputs = (self._gather(name, step) for name in ("q", "k", "v", "output"))
            found += self._compare(QKV(q, k, v), outputs)
        return found

    def _gather(self, name: str, step: Sequence[HotRow]) -> Tensor:
        parts = [getattr(row, name) for row in step]
        buffer = self._buffer(f"held {name}", (len(parts), *parts[0].shape))[: len(parts)]
        for place, part in zip(buffer, parts, strict=True):
            place.copy_(part)
        return buffer

    def _buffer(self, name: str, shape: Sequence[int]) -> Tensor:
        if name not in self._buffers:
            self._buffers[name] = self._query.q.new_empty((self._step, *shape[1:]), dtype=torch.float32)
        return self._buffers[name]

    def _compare(self, candidates: QKV, outputs: Tensor) -> list[float]:
        scores = aligned_attention_scores(
            self._query,
            candidates,
            self._similarity,
            query_output=self._own,
            candidate_outputs=outputs,
            readout=self._readout,
        )
        found: list[float] = scores.tolist()
        return found


def closest_first(
    scores: NDArray[np.float32], ids: NDArray[np.int64], similarity: Similarity = "cosine"
) -> NDArray[np.int64]:
    """Return positions from closest to farthest; equal scores are ordered by id, so the order is always the same."""
    keys = -scores if higher_is_closer(similarity) else scores
    order: NDArray[np.int64] = np.lexsort((ids, keys))
    return order
