"""Score candidates whose tensors are at hand against one or several queries, a step of candidates at a time."""

from collections.abc import Callable, Collection, Mapping, Sequence

import torch
from torch import Tensor

from retrieval.aas import QKV, AnyReadout, aligned_attention_scores, attention_output
from retrieval.arithmetic import ARITHMETIC, Arithmetic
from retrieval.hot import HotRow, HotRows
from retrieval.vocabulary import Similarity

Restore = Callable[[Mapping[str, Tensor]], QKV]
"""Stored arrays, widened to float32 on the device that scores, to Q/K/V."""


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
        restore: Restore,
        hot: HotRows | None,
        arithmetic: Arithmetic | None = None,
    ) -> None:
        """Take the queries, one item each, and by row the numbers of those that want it."""
        how = arithmetic or ARITHMETIC[queries[0].q.device.type]
        self._device, self._dtype = queries[0].q.device, how.dtype
        self._queries = [query.to(self._device, how.dtype) for query in queries]
        self._own = [attention_output(query.q, query.k, query.v, how.dtype) for query in self._queries]
        self._takers, self._similarity, self._readout = takers, similarity, readout
        self._restore, self._hot = restore, hot
        self._step = max(1, min(how.step_rows, how.step_bytes // (4 * numbers_of(queries[0]))))
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
        for number, query in enumerate(self._queries):
            places = [place for place, row in enumerate(rows) if number in self._takers[row]]
            if not places:
                continue
            some, theirs = candidates, outputs
            if len(places) < len(rows):
                chosen = torch.tensor(places, device=self._device)
                some, theirs = candidates[chosen], outputs[chosen]
            scores = aligned_attention_scores(
                query,
                some,
                self._similarity,
                query_output=self._own[number],
                candidate_outputs=theirs,
                readout=self._readout,
                dtype=self._dtype,
            )
            self._found[number].append(([rows[place] for place in places], scores))

    def _widened(self, name: str, part: Tensor) -> Tensor:
        return self._buffer(name, part.shape[1:], torch.float32)[: len(part)].copy_(part)

    def _gathered(self, name: str, step: Sequence[HotRow]) -> Tensor:
        parts: list[Tensor] = [getattr(row, name) for row in step]
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


def numbers_of(query: QKV) -> int:
    """Return how many numbers one item has."""
    return sum(tensor[0].numel() for tensor in (query.q, query.k, query.v))
