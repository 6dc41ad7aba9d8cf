"""The re-ranker: score candidates exactly, chunk by chunk, from whatever sources their tensors come.

A candidate is loaded, widened and attended to by itself once, however many queries want it. Nothing waits for a GPU
until all chunks are scored.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from time import perf_counter
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from retrieval.devices.precision import SCORING_PRECISION
from retrieval.devices.transfer import to_device
from retrieval.errors import IndexCorruptError
from retrieval.scoring.aas import (
    PUBLISHED,
    QKV,
    Comparison,
    aligned_attention_scores,
    attention_output,
    own_output,
    read,
)
from retrieval.search.tensors.chunks import Buffers, Chunk, StoredChunk
from retrieval.types import Directions

Part = Literal["read", "compute"]


class TensorSource(Protocol):
    """Where the tensors of some candidates come from."""

    @property
    def part(self) -> Part:
        """The part of a search that waiting for this source belongs to."""
        ...

    def chunks(self) -> Iterator[Chunk]:
        """Yield every candidate of this source once, some at a time."""
        ...


@dataclass(frozen=True)
class QueryTensors:
    """A query's tensors and its candidates."""

    qkv: QKV  # one item, float32, on the scoring device
    rows: Sequence[int]  # of the index
    directions: Directions | None = None  # None: those of the whole search
    mask: Tensor | None = None  # how much each token counts, see retrieval.scoring.aas


@dataclass(frozen=True)
class Reranked:
    """Exact scores, and where the time went."""

    scores: Sequence[Mapping[int, float]]  # for every query, by row; rows that no source had are missing
    timing_ms: Mapping[str, float]  # "read" and "compute": waiting for sources; "rerank": scoring


@torch.inference_mode()
def rerank(queries: Sequence[QueryTensors], sources: Iterable[TensorSource], how: Comparison = PUBLISHED) -> Reranked:
    """Score every candidate of every query exactly.

    Args:
        queries: one or more; candidates that several share are scored from one copy.
        sources: in the order in which they are used; each row comes from one of them, and all are rows of a query.
        how: the comparison; a precision of None means the device's own.
    """
    timing = {"read": 0.0, "rerank": 0.0, "compute": 0.0}
    mark = perf_counter()

    def spent_on(part: str) -> None:
        nonlocal mark
        before, mark = mark, perf_counter()
        timing[part] += 1e3 * (mark - before)

    scorer = ChunkScorer(queries, how)
    spent_on("rerank")
    for source in sources:
        for chunk in source.chunks():
            spent_on(source.part)
            scorer.score(chunk)
            spent_on("rerank")
        spent_on(source.part)
    scores = scorer.scores()
    spent_on("rerank")
    return Reranked(scores, timing)


class ChunkScorer:
    """Scores chunks against the queries that want their rows."""

    def __init__(self, queries: Sequence[QueryTensors], how: Comparison) -> None:
        self._device, self._shaped = queries[0].qkv.q.device, queries[0].qkv
        limits = SCORING_PRECISION[self._device.type]
        self._how = replace(how, precision=how.precision or limits.dtype)
        self._queries = [replace(query, qkv=query.qkv.to(self._device, self._how.dtype)) for query in queries]
        self._hows = [replace(self._how, directions=query.directions or self._how.directions) for query in queries]
        self._needs_own = any(how.directions != "query_to_candidate" for how in self._hows)  # of candidates
        self._own = [own_output(query.qkv, self._how, query.mask) for query in self._queries]
        self._askers = _askers(queries)
        self._step = max(1, min(limits.step_rows, limits.step_bytes // (4 * count_entries(queries[0].qkv))))
        self._buffers = Buffers(self._step, self._how.dtype, self._device)
        self._found: list[list[tuple[Sequence[int], Tensor]]] = [[] for _ in queries]

    def score(self, chunk: Chunk) -> None:
        """Score a chunk, a step at a time; on a GPU this only launches the work."""
        for start in range(0, len(chunk.rows), self._step):
            part = slice(start, start + self._step)
            candidates, outputs = chunk.load(part, self._buffers)
            self._check_shapes(candidates)
            keeps = isinstance(chunk, StoredChunk) and chunk.cache is not None
            if outputs is None and (self._needs_own or keeps):
                outputs = self._output(candidates)
            own = None if outputs is None or not self._needs_own else self._read(outputs)
            self._compare(chunk.rows[part], candidates, own)
            if isinstance(chunk, StoredChunk) and outputs is not None:
                chunk.keep(part, candidates, outputs)

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

    def _check_shapes(self, candidates: QKV) -> None:
        """Raise IndexCorruptError unless a query is one item of the candidates' shapes, or a union of such items."""
        mine, theirs = (
            [list(tensor.shape[1:]) for tensor in (each.q, each.k, each.v)] for each in (self._shaped, candidates)
        )
        images = mine[0][2] // theirs[0][2]
        if mine != [[branches, heads, images * tokens, width] for branches, heads, tokens, width in theirs]:
            raise IndexCorruptError(f"the index is damaged: its tensors have the shapes {theirs} instead of {mine}")

    def _output(self, images: QKV) -> Tensor:
        return attention_output(images.q, images.k, images.v, self._how.dtype)

    def _read(self, output: Tensor) -> Tensor:
        return read(output, self._how.readout)

    def _compare(self, rows: Sequence[int], candidates: QKV, own: Tensor | None) -> None:
        places = self._places(rows)
        chosen = self._on_device({number: mine for number, mine in places.items() if len(mine) < len(rows)})
        for number, mine in places.items():
            some, theirs = candidates, own
            if number in chosen:
                some = candidates[chosen[number]]
                theirs = None if own is None else own[chosen[number]]
            query, how = self._queries[number], self._hows[number]
            scores = aligned_attention_scores(query.qkv, some, how, self._own[number], theirs, query.mask)
            self._found[number].append(([rows[place] for place in mine], scores))

    def _places(self, rows: Sequence[int]) -> dict[int, list[int]]:
        """Return, for every query that wants some of ``rows``, their positions among ``rows``."""
        places: dict[int, list[int]] = {}
        for place, row in enumerate(rows):
            for number in self._askers[row]:
                places.setdefault(number, []).append(place)
        return places

    def _on_device(self, places: Mapping[int, Sequence[int]]) -> dict[int, Tensor]:
        """Return lists of positions as tensors on the device: one upload for all, and no waiting for a GPU."""
        if not places:
            return {}
        together = to_device(np.concatenate([np.array(mine, np.int64) for mine in places.values()]), self._device)
        ends = list(accumulate(len(mine) for mine in places.values()))
        return {number: together[end - len(places[number]) : end] for number, end in zip(places, ends, strict=True)}


def _askers(queries: Sequence[QueryTensors]) -> dict[int, list[int]]:
    """Return, by row, the numbers of the queries that want it."""
    askers: dict[int, list[int]] = {}
    for number, query in enumerate(queries):
        for row in dict.fromkeys(query.rows):
            askers.setdefault(row, []).append(number)
    return askers


def count_entries(image: QKV) -> int:
    """Return how many numbers one item has."""
    return sum(tensor[0].numel() for tensor in (image.q, image.k, image.v))
