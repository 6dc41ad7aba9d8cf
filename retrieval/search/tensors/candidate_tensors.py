"""Exact scores of one search's candidates: each from the fastest source that has its tensors."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from index_store.reader import IndexReader
from retrieval.progress import Cancellation, OnProgress, ignore_progress
from retrieval.scoring.aas import QKV
from retrieval.search.reranking import QueryTensors, Reranked, TensorSource
from retrieval.search.scoring_context import ScoringContext
from retrieval.search.tensors.chunks import Buffers
from retrieval.search.tensors.memory_cache import ModeCache
from retrieval.search.tensors.tensor_sources import CachedTensors, ComputedTensors, MemoryTensors, StoredTensors
from retrieval.types import Directions

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CandidateScores:
    """One query's exact scores in the order of its candidates, and where their tensors came from."""

    scores: NDArray[np.float32]
    is_scored: NDArray[np.bool_]  # False: no source had the tensors, and the score means nothing
    computed: int = 0
    cached: int = 0  # read from the index's cache on disk
    unkept: int = 0  # computed, but the cache could not keep them
    timing_ms: Mapping[str, float] = field(default_factory=dict)  # the query's share

    @property
    def left_out(self) -> int:
        """Candidates without a score."""
        return int((~self.is_scored).sum())

    @property
    def counts(self) -> dict[str, int]:
        """The numbers that results give."""
        return {"computed": self.computed, "cached": self.cached, "left_out": self.left_out}


@dataclass(frozen=True)
class Scored:
    """One part of a question that is scored against its candidates."""

    qkv: QKV  # one item
    mask: Tensor | None = None  # how much each token counts
    directions: Directions | None = None  # None: those of the search
    small: "Scored | None" = None  # the same region drawn small; both scores make one

    @property
    def views(self) -> "list[Scored]":
        """The part itself, and the small drawing of its region."""
        return [self] if self.small is None else [self, self.small]


@dataclass(frozen=True)
class CandidateTensors:
    """The sources of one search's candidates, of all its queries together; for one re-ranking."""

    memory: MemoryTensors
    stored: StoredTensors
    cached: CachedTensors
    computed: ComputedTensors

    @classmethod
    def begin(
        cls,
        context: ScoringContext,
        mode: str,
        rows: Sequence[NDArray[np.int64]],
        cache: ModeCache | None,
        on_progress: OnProgress = ignore_progress,
        cancel: Cancellation | None = None,
    ) -> "CandidateTensors":
        """Find out which source has which candidate, and begin to read in another thread.

        Args:
            context: of the index.
            mode: whose tensors are scored.
            rows: every query's candidates, int64 ``[candidates]``.
            cache: the mode's candidates in memory, and where others are kept; None: nothing is kept in memory.
            on_progress: hears of tensors that are computed.
            cancel: ends the computing of tensors.
        """
        reader, device, decode = context.reader, context.device, context.decoder(mode)
        in_index, others = _split(reader, mode, rows)
        in_memory = {} if cache is None else cache.find(in_index)
        unread = [row for row in in_index if row not in in_memory]
        stored = StoredTensors(unread, partial(reader.attention, mode), decode, device, reader.row_bytes(mode), cache)
        items = dict(zip(others, reader.items(others), strict=True)) if others else {}
        keys = {row: context.cache_key(mode, item) for row, item in items.items()}
        cached = CachedTensors(context.tensor_cache, keys, decode, device, context.models.codec)
        computed = ComputedTensors(context, mode, items, cached, on_progress, cancel)
        stored.begin()
        return cls(MemoryTensors(in_memory), stored, cached, computed)

    @property
    def sources(self) -> tuple[TensorSource, ...]:
        """The sources in the order in which they are used."""
        return self.memory, self.stored, self.cached, self.computed

    def scores(self, queries: Sequence[QueryTensors], found: Reranked) -> list[CandidateScores]:
        """Return the scores that the re-ranker ``found`` from :attr:`sources`, by query."""
        share = {part: spent / len(queries) for part, spent in found.timing_ms.items()}
        if self.computed.computed:
            logger.info("computed the tensors of %d candidates", len(self.computed.computed))
        if self.computed.unkept:
            logger.warning("the cache could not keep the tensors of %d candidates", len(self.computed.unkept))
        return [self._of_query(query.rows, scores, share) for query, scores in zip(queries, found.scores, strict=True)]

    def load(self) -> dict[int, QKV]:
        """Return by row the tensors that a re-ranking would compare, one item each, float32; use it in its place."""
        device = self.stored.device
        return {
            row: chunk.load(slice(place, place + 1), Buffers(1, torch.float32, device))[0]
            for source in self.sources
            for chunk in source.chunks()
            for place, row in enumerate(chunk.rows)
        }

    def _of_query(
        self, rows: Sequence[int], scores: Mapping[int, float], timing_ms: Mapping[str, float]
    ) -> CandidateScores:
        return CandidateScores(
            np.array([scores.get(row, 0.0) for row in rows], np.float32),
            np.array([row in scores for row in rows], bool),
            computed=len(self.computed.computed.intersection(rows)),
            cached=len(self.cached.found.intersection(rows)),
            unkept=len(self.computed.unkept.intersection(rows)),
            timing_ms=timing_ms,
        )


def _split(reader: IndexReader, mode: str, rows: Sequence[NDArray[np.int64]]) -> tuple[list[int], list[int]]:
    """Return all queries' candidates, each once: those whose tensors the index stores, and the others."""
    every = np.array(list(dict.fromkeys(np.concatenate(rows).tolist())), np.int64)
    is_stored = reader.has_tensors(mode)[every]
    return every[is_stored].tolist(), every[~is_stored].tolist()
