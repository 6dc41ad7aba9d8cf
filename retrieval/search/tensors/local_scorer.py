"""Exact scores of candidates: the interface that searches use, and the scorer that reads tensors in this process."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from retrieval.encoding.recipe import Recipe, codec_of
from retrieval.progress import Cancellation, OnProgress, ignore_progress
from retrieval.scoring.aas import Comparison
from retrieval.search.regions.found_boxes import find_boxes
from retrieval.search.reranking import QueryTensors, rerank
from retrieval.search.scoring_context import ScoringContext
from retrieval.search.tensors.candidate_tensors import CandidateScores, CandidateTensors, Scored
from retrieval.search.tensors.memory_cache import MemoryCache, ModeCache, cache_dtype
from retrieval.types import Fractions, Similarity


@dataclass(frozen=True)
class ScoringRun:
    """What the candidates of some questions are scored for."""

    mode: str
    similarity: Similarity = "cosine"
    keep: bool = True  # in memory, for later searches; an exhaustive one would drive out those in use
    on_progress: OnProgress = ignore_progress  # hears of tensors that are computed
    cancel: Cancellation | None = None  # ends the computing


class BegunScoring(Protocol):
    """Candidates whose tensors are being read."""

    def scores(self, asked: Sequence[QueryTensors]) -> list[CandidateScores]:
        """Return the exact scores of each query's rows, in their order."""
        ...


class CandidateScorer(Protocol):
    """Scores rows of one opened index where their tensors lie; safe in many threads."""

    def begin(self, context: ScoringContext, rows: Sequence[NDArray[np.int64]], run: ScoringRun) -> BegunScoring:
        """Begin to read the tensors of ``rows``, those of each question."""
        ...

    def boxes(
        self, context: ScoringContext, region: Scored, rows: Sequence[int], run: ScoringRun
    ) -> Mapping[int, Fractions]:
        """Return the box where each row has a region, as fractions; rows without a place are missing."""
        ...

    def make_room(self) -> None:
        """Drop candidates that are kept in memory, after a shortage of it."""
        ...


class LocalScorer:
    """Reads or computes tensors in this process, and keeps some in the scoring device's memory."""

    def __init__(self, recipe: Recipe, device: torch.device, memory: int) -> None:
        """Take the index's recipe, the scoring device, and the bytes of candidates that stay in its memory."""
        self._recipe, self._device = recipe, device
        self.memory = MemoryCache(memory)

    def begin(self, context: ScoringContext, rows: Sequence[NDArray[np.int64]], run: ScoringRun) -> BegunScoring:
        """See :class:`CandidateScorer`."""
        cache = self._cache(run)
        return _BegunHere(
            CandidateTensors.begin(context, run.mode, rows, cache, run.on_progress, run.cancel), context, run
        )

    def boxes(
        self, context: ScoringContext, region: Scored, rows: Sequence[int], run: ScoringRun
    ) -> Mapping[int, Fractions]:
        """See :class:`CandidateScorer`."""
        return find_boxes(context, run.mode, region, rows, self._cache(run), run.on_progress, run.cancel)

    def make_room(self) -> None:
        """See :class:`CandidateScorer`."""
        self.memory.shrink()

    def _cache(self, run: ScoringRun) -> ModeCache | None:
        """Return the candidates in memory; None where nothing is kept."""
        if not run.keep or not self.memory.budget:
            return None
        hidden = codec_of(self._recipe.settings).hidden
        # Modes project shared layer inputs each by itself; shared Q, K and V are the same candidates.
        name = run.mode if hidden else self._recipe.tensors[run.mode]
        return self.memory.of_mode(name, cache_dtype(self._device, hidden))


@dataclass(frozen=True)
class _BegunHere:
    tensors: CandidateTensors
    context: ScoringContext
    run: ScoringRun

    def scores(self, asked: Sequence[QueryTensors]) -> list[CandidateScores]:
        how = Comparison(self.run.similarity, self.context.models.readout(self.run.mode))
        return self.tensors.scores(asked, rerank(asked, self.tensors.sources, how, self.context.threads))
