"""The re-ranker: score candidates exactly, chunk by chunk, from whatever sources their tensors come.

A candidate is loaded, widened and attended to by itself once, however many queries want it. Nothing waits for a GPU
until all chunks are scored.
"""

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from time import perf_counter
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from retrieval.devices.precision import SCORING_PRECISION
from retrieval.devices.threads import ALONE, CoreThreads
from retrieval.devices.transfer import to_device
from retrieval.errors import IndexCorruptError
from retrieval.scoring.aas import PUBLISHED, QKV, Comparison, PreparedQuery, score_queries
from retrieval.scoring.outputs import attention_output, read
from retrieval.search.tensors.chunks import Buffers, Chunk, StoredChunk
from retrieval.types import Directions

Part = Literal["read", "compute"]

TOKENS_AT_ONCE = 256  # of queries that attend in one call: more fill a processor by themselves, and cost memory


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
def rerank(
    queries: Sequence[QueryTensors],
    sources: Iterable[TensorSource],
    how: Comparison = PUBLISHED,
    threads: CoreThreads = ALONE,
) -> Reranked:
    """Score every candidate of every query exactly.

    Args:
        queries: one or more; candidates that several share are scored from one copy.
        sources: in the order in which they are used; each row comes from one of them, and all are rows of a query.
        how: the comparison; a precision of None means the device's own.
        threads: share the steps of a chunk.
    """
    timing = {"read": 0.0, "rerank": 0.0, "compute": 0.0}
    mark = perf_counter()

    def spent_on(part: str) -> None:
        nonlocal mark
        before, mark = mark, perf_counter()
        timing[part] += 1e3 * (mark - before)

    scorer = ChunkScorer(queries, how, threads)
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

    def __init__(self, queries: Sequence[QueryTensors], how: Comparison, threads: CoreThreads = ALONE) -> None:
        self._threads, self._own = threads, threading.local()
        self._device, self._shaped = queries[0].qkv.q.device, queries[0].qkv
        self._how = replace(how, precision=how.precision or SCORING_PRECISION[self._device.type].dtype)
        self._groups = _groups(queries)
        self._prepared = [[self._prepare(query) for query in group] for group in self._groups]
        directions = {query.how.directions for group in self._prepared for query in group}
        self._needs_own = directions != {"query_to_candidate"}  # of candidates
        self._askers = _askers([group[0].rows for group in self._groups])
        self._step = step_rows(queries[0].qkv)
        self._found: list[list[tuple[Sequence[int], Tensor]]] = [[] for _ in self._groups]

    def _prepare(self, query: QueryTensors) -> PreparedQuery:
        how = replace(self._how, directions=query.directions or self._how.directions)
        return PreparedQuery.of(query.qkv.to(self._device, self._how.dtype), how, query.mask)

    def score(self, chunk: Chunk) -> None:
        """Score a chunk, a step at a time; on a GPU this only launches the work."""
        steps = [slice(start, start + self._step) for start in range(0, len(chunk.rows), self._step)]
        self._threads.map(partial(self._score_step, chunk), steps)

    @torch.inference_mode()  # which each thread begins by itself
    def _score_step(self, chunk: Chunk, part: slice) -> None:
        candidates, outputs = chunk.load(part, self._buffers(), asks=self._needs_own)
        self._check_shapes(candidates)
        keeps = isinstance(chunk, StoredChunk) and chunk.cache is not None
        if outputs is None and (self._needs_own or keeps):
            outputs = self._output(candidates)
        own = None if outputs is None or not self._needs_own else self._read(outputs)
        self._compare(chunk.rows[part], candidates, own)
        if isinstance(chunk, StoredChunk) and outputs is not None:
            chunk.keep(part, candidates, outputs)

    def _buffers(self) -> Buffers:
        """Return the calling thread's memory for a step."""
        if not hasattr(self._own, "buffers"):
            self._own.buffers = Buffers(self._step, self._how.dtype, self._device)
        buffers: Buffers = self._own.buffers
        return buffers

    def scores(self) -> list[dict[int, float]]:
        """Return, for every query, the scores by row; this waits for the device."""
        every: list[dict[int, float]] = []
        for group, found in zip(self._groups, self._found, strict=True):
            rows = [row for rows, _ in found for row in rows]
            scores = torch.cat([scores for _, scores in found], dim=1).tolist() if found else [[]] * len(group)
            every += [dict(zip(rows, mine, strict=True)) for mine in scores]
        return every

    def _check_shapes(self, candidates: QKV) -> None:
        """Raise IndexCorruptError unless a query is one item of the candidates' shapes, or a union of such items."""
        has_queries = candidates.q.shape[3] > 0  # else only the query asks
        mine, theirs = (
            [list(tensor.shape[1:]) for tensor in ((each.k, each.v, each.q) if has_queries else (each.k, each.v))]
            for each in (self._shaped, candidates)
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
            scores = score_queries(self._prepared[number], some, theirs)
            self._found[number].append(([rows[place] for place in mine], scores))

    def _places(self, rows: Sequence[int]) -> dict[int, list[int]]:
        """Return, for every group that wants some of ``rows``, their positions among ``rows``."""
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


def _groups(queries: Sequence[QueryTensors]) -> list[list[QueryTensors]]:
    """Return queries, in their order, in groups that are scored at once: of the same rows, and few tokens together."""
    groups: list[list[QueryTensors]] = []
    for query in queries:
        last = groups[-1] if groups else []
        tokens = sum(each.qkv.q.shape[3] for each in (*last, query))
        if last and last[0].rows == query.rows and tokens <= TOKENS_AT_ONCE:
            last.append(query)
        else:
            groups.append([query])
    return groups


def _askers(rows: Sequence[Sequence[int]]) -> dict[int, list[int]]:
    """Return, by row, the numbers of the groups that want it, for the rows of each group."""
    askers: dict[int, list[int]] = {}
    for number, mine in enumerate(rows):
        for row in dict.fromkeys(mine):
            askers.setdefault(row, []).append(number)
    return askers


def step_rows(query: QKV) -> int:
    """Return how many candidates of a query's shape are loaded and scored at a time on its device."""
    limits = SCORING_PRECISION[query.q.device.type]
    return max(1, min(limits.step_rows, limits.step_bytes // (4 * count_entries(query))))


def count_entries(image: QKV) -> int:
    """Return how many numbers one item has."""
    return sum(tensor[0].numel() for tensor in (image.q, image.k, image.v))
