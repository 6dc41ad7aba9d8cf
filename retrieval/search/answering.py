"""Answer questions: encode their images, choose candidates, score these exactly, and make results of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from index_store.reader import IndexReader
from retrieval.devices.memory import tried_twice
from retrieval.encoding.loaded_models import ModelInputs
from retrieval.encoding.recipe import Recipe, codec_of
from retrieval.encoding.timing import SharedTiming
from retrieval.models.modes import Outputs
from retrieval.models.registry import describe_extractor
from retrieval.progress import Cancellation, OnProgress
from retrieval.scoring.aas import Comparison
from retrieval.search.candidate_tensors import CandidateScores, CandidateTensors
from retrieval.search.candidates import CandidateGenerator, Candidates
from retrieval.search.index_info import about_index
from retrieval.search.memory_cache import MemoryCache, ModeCache, cache_dtype
from retrieval.search.notes import search_notes
from retrieval.search.queries.combining import coarse_vectors, combine_scores, scored_parts
from retrieval.search.queries.query import Query
from retrieval.search.ranking import rank_candidates
from retrieval.search.results import Note, Results
from retrieval.search.scoring_context import ScoringContext
from retrieval.settings import SearchSettings


@dataclass(frozen=True)
class Request:
    """What a search is asked for, beside its questions."""

    mode: str
    settings: SearchSettings
    on_progress: OnProgress
    cancel: Cancellation | None


class Answerer:
    """Answers questions to one opened index; safe in many threads."""

    def __init__(self, reader: IndexReader, recipe: Recipe, device: torch.device, memory: int) -> None:
        """Take an index, its recipe, the scoring device, and the bytes of candidates that stay in its memory."""
        self._reader, self._recipe, self._device = reader, recipe, device
        self._model = describe_extractor(recipe.settings.model)
        self._generator = CandidateGenerator(reader, self._model.modes, device)
        self._memory_cache = MemoryCache(memory)

    def answer(self, context: ScoringContext, questions: Sequence[Query], request: Request) -> list[Results]:
        """Answer some questions at once; the time that they spend together is shared out evenly.

        Raises:
            MemoryFullError: memory ran out twice, the second time without candidates cached in memory.
        """
        attempt = partial(self._answer, context, questions, request)
        return tried_twice(attempt, self._memory_cache.shrink, self._device)

    def _answer(self, context: ScoringContext, questions: Sequence[Query], request: Request) -> list[Results]:
        mode, timing = request.mode, SharedTiming(len(questions))
        places = _places(questions)
        with timing.of("embed"):
            outputs = Outputs((mode,) if request.settings.rerank else (), tuple(context.models.embedders))
            pictures = [picture for question in questions for picture in question.pictures]
            inputs = [context.models.prepare(picture.image, outputs) for picture in pictures]
            vectors = context.encode(inputs, "query", Outputs(encoders=outputs.encoders)).vectors
        with timing.of("coarse"):
            found = [
                self._candidates(question, {name: every[place] for name, every in vectors.items()}, request)
                for question, place in zip(questions, places, strict=True)
            ]
        scored: Sequence[CandidateScores | None] = [None] * len(questions)
        if request.settings.rerank:
            scored = self._rerank(context, questions, inputs, [each.rows for each in found], request, timing)
        answers = zip(questions, found, scored, strict=True)
        return [self._results(question, each, scores, request, timing.ms) for question, each, scores in answers]

    def _candidates(self, question: Query, vectors: Mapping[str, NDArray[np.float32]], request: Request) -> Candidates:
        digests = {picture.sha256 for picture in question.pictures if picture.sha256}
        excluded: set[int] = set()
        if request.settings.exclude_query:
            excluded = {row for digest in digests for row in self._reader.find("sha256", digest)}
        asking = coarse_vectors(question, vectors)
        return self._generator.generate(asking, request.mode, request.settings, sorted(excluded))

    def _rerank(
        self,
        context: ScoringContext,
        questions: Sequence[Query],
        inputs: Sequence[ModelInputs],
        rows: Sequence[NDArray[np.int64]],
        request: Request,
        timing: SharedTiming,
    ) -> list[CandidateScores]:
        """Score each question's rows exactly; they are read while the questions' tensors are computed."""
        mode = request.mode
        begun = CandidateTensors.begin(
            context, mode, rows, self._mode_cache(request), request.on_progress, request.cancel
        )
        with timing.of("embed"):
            tensors = context.tensors(inputs, "query", mode)
        how = Comparison(request.settings.similarity, context.models.readout(mode))
        parts = [
            scored_parts(question, [tensors[n : n + 1] for n in range(place.start, place.stop)])
            for question, place in zip(questions, _places(questions), strict=True)
        ]
        asked = [(part, own) for mine, own in zip(parts, rows, strict=True) for part in mine]
        found = iter(begun.score([part for part, _ in asked], [own for _, own in asked], how))
        return [
            combine_scores(question, [next(found) for _ in mine], how.similarity)
            for question, mine in zip(questions, parts, strict=True)
        ]

    def _mode_cache(self, request: Request) -> ModeCache | None:
        """Return the candidates in memory; None for an exhaustive search, which would drive out those in use."""
        if request.settings.exhaustive or not self._memory_cache.budget:
            return None
        hidden = codec_of(self._recipe.settings).hidden
        # Modes project shared layer inputs each by itself; shared Q, K and V are the same candidates.
        name = request.mode if hidden else self._recipe.tensors[request.mode]
        return self._memory_cache.of_mode(name, cache_dtype(self._device, hidden))

    def _results(
        self,
        question: Query,
        candidates: Candidates,
        scored: CandidateScores | None,
        request: Request,
        timing_ms: Mapping[str, float],
    ) -> Results:
        warning, without_vector = self._model.warnings.get(request.mode), self._generator.without_vector(request.mode)
        notes = search_notes(self._reader.layout.root, request.mode, scored, without_vector)
        partial = [note for picture in question.pictures for note in picture.notes()]
        return Results(
            results=rank_candidates(self._reader, candidates, scored, request.settings),
            query=question.about(),
            mode=request.mode,
            index=about_index(self._reader, self._recipe),
            timing_ms={**timing_ms, **({} if scored is None else scored.timing_ms)},
            notes=(*([Note("model", warning)] if warning else []), *partial, *notes),
            **({} if scored is None else scored.counts),
        )


def _places(questions: Sequence[Query]) -> list[slice]:
    """Return the positions of each question's pictures among those of all."""
    ends = np.cumsum([len(question.pictures) for question in questions]).tolist()
    return [slice(end - len(question.pictures), end) for question, end in zip(questions, ends, strict=True)]
