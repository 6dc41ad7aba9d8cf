"""Score candidates against queries: read a chunk while the one before is scored, a step of candidates at a time."""

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retrieval.devices.precision import SCORING_PRECISION, ScoringPrecision
from retrieval.devices.transfer import Upload, begin_upload, to_device
from retrieval.encoding.stored_tensors import DecodeQKV, stored_qkv
from retrieval.scoring.aas import QKV, AnyReadout, aligned_attention_scores, attention_output
from retrieval.search.memory_cache import HotRow, HotRows
from retrieval.types import LINEAR, Similarity

READ_BYTES = 100 << 20  # of stored tensors fetched at a time, one fetch ahead
READ_ROWS = 512

ReadRows = Callable[[Sequence[int]], Mapping[str, NDArray[Any]]]
"""Rows to the arrays that are stored of them, ``[rows, ...]`` each."""


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
    restore: DecodeQKV = stored_qkv,
    hot: HotRows | None = None,
    early: Early | None = None,
    arithmetic: ScoringPrecision | None = None,
) -> Scored:
    """Score each query's ``rows`` against it; a row that several queries want is read once.

    Args:
        queries: one item each, float32, of one shape, on the device that scores.
        rows: for every query, rows of the index in any order; a score does not depend on it.
        read: fetches tensors of rows; called in another thread, one chunk ahead.
        similarity: see :func:`retrieval.scoring.aas.aligned_attention_scores`.
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
    chunks = _chunks([row for row in rest if row not in held], _numbers_of(queries[0]))
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


class Scorer:
    """Scores rows against the queries that want them, in float32 buffers that are used again and again.

    A row is read, widened and attended to by itself once, however many queries want it.
    """

    def __init__(
        self,
        queries: Sequence[QKV],
        takers: Mapping[int, Collection[int]],
        similarity: Similarity,
        readout: AnyReadout,
        restore: DecodeQKV,
        hot: HotRows | None,
        arithmetic: ScoringPrecision | None = None,
    ) -> None:
        """Take the queries, one item each, and by row the numbers of those that want it."""
        how = arithmetic or SCORING_PRECISION[queries[0].q.device.type]
        self._device, self._dtype = queries[0].q.device, how.dtype
        self._queries = [query.to(self._device, how.dtype) for query in queries]
        self._own = [attention_output(query.q, query.k, query.v, how.dtype) for query in self._queries]
        self._takers, self._similarity, self._readout = takers, similarity, readout
        self._restore, self._hot = restore, hot
        self._step = max(1, min(how.step_rows, how.step_bytes // (4 * _numbers_of(queries[0]))))
        self._buffers: dict[str, Tensor] = {}
        self._found: list[list[tuple[Sequence[int], Tensor]]] = [[] for _ in queries]

    def score(self, rows: Sequence[int], stored: Mapping[str, Tensor]) -> None:
        """Score ``rows``, whose arrays as stored are given, on the queries' device."""
        for start in range(0, len(rows), self._step):
            step = rows[start : start + self._step]
            parts = {name: array[start : start + len(step)] for name, array in stored.items()}
            candidates = self._restore({name: self._widened(name, part) for name, part in parts.items()})
            outputs = attention_output(candidates.q, candidates.k, candidates.v, self._dtype)
            self._compare(step, candidates, outputs)
            if self._hot:
                self._hot.put(step, candidates, outputs)

    def score_held(self, held: Mapping[int, HotRow]) -> None:
        """Score the rows that are in memory."""
        rows = list(held)
        for start in range(0, len(rows), self._step):
            step = rows[start : start + self._step]
            q, k, v, outputs = (self._gathered(name, [held[row] for row in step]) for name in ("q", "k", "v", "output"))
            self._compare(step, QKV(q, k, v), outputs)

    def scores(self) -> list[dict[int, float]]:
        """Return, for every query, the scores by row; this waits for the device."""
        return [
            dict(
                zip(
                    [row for rows, _ in found for row in rows],
                    torch.cat([scores for _, scores in found]).tolist() if found else [],
                    strict=True,
                )
            )
            for found in self._found
        ]

    def _compare(self, rows: Sequence[int], candidates: QKV, outputs: Tensor) -> None:
        places = self._places(rows)
        chosen = self._on_device({number: mine for number, mine in places.items() if len(mine) < len(rows)})
        for number, mine in places.items():
            some, theirs = candidates, outputs
            if number in chosen:
                some, theirs = candidates[chosen[number]], outputs[chosen[number]]
            scores = aligned_attention_scores(
                self._queries[number],
                some,
                self._similarity,
                query_output=self._own[number],
                candidate_outputs=theirs,
                readout=self._readout,
                dtype=self._dtype,
            )
            self._found[number].append(([rows[place] for place in mine], scores))

    def _places(self, rows: Sequence[int]) -> dict[int, list[int]]:
        """Return, by the number of the query, where among ``rows`` those are that it wants, if there are any."""
        places: dict[int, list[int]] = {}
        for place, row in enumerate(rows):
            for number in self._takers[row]:
                places.setdefault(number, []).append(place)
        return places

    def _on_device(self, places: Mapping[int, Sequence[int]]) -> dict[int, Tensor]:
        """Return lists of places as tensors on the device: one upload for all, and no waiting for a GPU."""
        if not places:
            return {}
        together = to_device(np.concatenate([np.array(mine, np.int64) for mine in places.values()]), self._device)
        ends = list(accumulate(len(mine) for mine in places.values()))
        return {number: together[end - len(places[number]) : end] for number, end in zip(places, ends, strict=True)}

    def _widened(self, name: str, part: Tensor) -> Tensor:
        return self._buffer(name, part.shape[1:], torch.float32)[: len(part)].copy_(part)

    def _gathered(self, name: str, step: Sequence[HotRow]) -> Tensor:
        parts: list[Tensor] = [getattr(row, name) for row in step]
        if len(parts) == 1 and parts[0].dtype == self._dtype:
            return parts[0][None]
        buffer = self._buffer(f"held {name}", parts[0].shape, self._dtype)[: len(parts)]
        if parts[0].dtype == buffer.dtype:
            return torch.stack(parts, out=buffer)  # one call for all: on a GPU each costs some microseconds
        for place, part in zip(buffer, parts, strict=True):
            place.copy_(part)
        return buffer

    def _buffer(self, name: str, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        if name not in self._buffers:
            self._buffers[name] = torch.empty((self._step, *shape), dtype=dtype, device=self._device)
        return self._buffers[name]


def _numbers_of(query: QKV) -> int:
    """Return how many numbers one item has."""
    return sum(tensor[0].numel() for tensor in (query.q, query.k, query.v))
