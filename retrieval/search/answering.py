"""Answer questions: encode their images, choose candidates, score these exactly, and make results of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from index_store.catalog import absolute_uri
from index_store.reader import IndexReader
from retrieval.devices.memory import tried_twice
from retrieval.encoding.loaded_models import ModelInputs
from retrieval.encoding.recipe import Recipe, codec_of
from retrieval.encoding.timing import SharedTiming
from retrieval.errors import UsageError
from retrieval.models.modes import Outputs
from retrieval.models.registry import describe_extractor
from retrieval.progress import Cancellation, OnProgress
from retrieval.scoring.aas import QKV, Comparison
from retrieval.search.candidates import CandidateGenerator, Candidates
from retrieval.search.found_boxes import find_boxes
from retrieval.search.index_info import about_index
from retrieval.search.index_percentiles import IndexPercentiles
from retrieval.search.judging import Judgement, judge, merged
from retrieval.search.notes import note_on_gone, search_notes
from retrieval.search.queries.combining import coarse_vectors, combine_scores, join_views, scored_parts
from retrieval.search.queries.query import Query
from retrieval.search.ranking import rank_candidates
from retrieval.search.region_views import Small, as_scored, small_views, with_subjects
from retrieval.search.reranking import QueryTensors, rerank
from retrieval.search.results import Note, Result, Results
from retrieval.search.scaling import LocalScaling, scaling_of
from retrieval.search.scoring_context import ScoringContext
from retrieval.search.tensors.candidate_tensors import CandidateScores, CandidateTensors, Scored
from retrieval.search.tensors.memory_cache import MemoryCache, ModeCache, cache_dtype
from retrieval.settings import REGION_CANDIDATES, SearchSettings


@dataclass(frozen=True)
class Request:
    """What a search is asked for, beside its questions."""

    mode: str
    settings: SearchSettings
    on_progress: OnProgress
    cancel: Cancellation | None
    allowed: NDArray[np.int64] | None = None  # rows that pass the filter, ascending; None: there is no filter
    filter: Mapping[str, Any] | None = None  # the filter, as JSON values


@dataclass(frozen=True)
class _Exact:
    """One question's exact scores, and its first region as it was scored."""

    scores: CandidateScores
    region: Scored | None
    others: Mapping[str, CandidateScores] = field(default_factory=dict)  # in further modes


class Answerer:
    """Answers questions to one opened index; safe in many threads."""

    def __init__(self, reader: IndexReader, recipe: Recipe, device: torch.device, memory: int) -> None:
        """Take an index, its recipe, the scoring device, and the bytes of candidates that stay in its memory."""
        self._reader, self._recipe, self._device = reader, recipe, device
        self._model = describe_extractor(recipe.settings.model)
        self.generator = CandidateGenerator(reader, self._model.modes, device)
        self._memory_cache = MemoryCache(memory)
        self.percentiles = IndexPercentiles(reader)
        self._scaling = LocalScaling(reader, self.generator, self.percentiles)

    def answer(self, context: ScoringContext, questions: Sequence[Query], request: Request) -> list[Results]:
        """Answer some questions at once; the time that they spend together is shared out evenly.

        Raises:
            UsageError: percentiles are needed, and there are none for a question.
            MemoryFullError: memory ran out twice, the second time without candidates cached in memory.
        """
        if request.settings.scaling == "csls":
            self._scaling.required(request.mode)
        if request.settings.needs_percentiles:
            self._check_percentiles(questions, request)
        attempt = partial(self._answer, context, questions, request)
        return tried_twice(attempt, self._memory_cache.shrink, self._device)

    def _answer(self, context: ScoringContext, questions: Sequence[Query], request: Request) -> list[Results]:
        mode, timing = request.mode, SharedTiming(len(questions))
        with timing.of("embed"):
            questions = [with_subjects(context, mode, question) for question in questions]
            places = _places(questions)
            modes = (mode, *request.settings.mode_weights) if request.settings.rerank else ()
            outputs = Outputs(modes, tuple(context.models.embedders))
            pictures = [picture for question in questions for picture in question.pictures]
            small = small_views(context, mode, pictures) if request.settings.rerank else {}
            drawn = [*(picture.image for picture in pictures), *(view.drawing for view in small.values())]
            inputs = [context.models.prepare(image, outputs) for image in drawn]
            at_once = context.models.pools(outputs)  # else tensors are computed while candidates are read
            first = outputs if at_once else Outputs(encoders=outputs.encoders)
            encoded = context.encode(inputs if at_once else inputs[: len(pictures)], "query", first)
        with timing.of("coarse"):
            found = [
                self._candidates(question, {name: every[place] for name, every in encoded.vectors.items()}, request)
                for question, place in zip(questions, places, strict=True)
            ]
        scored: Sequence[_Exact | None] = [None] * len(questions)
        if request.settings.rerank:
            rows = [each.rows for each in found]
            by_mode = {
                name: self._rerank(
                    context,
                    questions,
                    encoded.tensors[name].to(context.device) if at_once else inputs,
                    small,
                    rows,
                    replace(request, mode=name),
                    timing,
                )
                for name in modes
            }
            scored = _of_all_modes(by_mode)
        answers = list(zip(questions, found, scored, strict=True))
        ranked = [self._ranked(question, each, exact, request) for question, each, exact in answers]
        if any(exact is not None and exact.region is not None for exact in scored):
            with timing.of("locate"):
                ranked = [
                    self._located(context, results, each, exact, request)
                    for results, (_, each, exact) in zip(ranked, answers, strict=True)
                ]
        return [
            self._results(question, results, exact, request, timing.ms)
            for results, (question, _, exact) in zip(ranked, answers, strict=True)
        ]

    def _ranked(
        self, question: Query, candidates: Candidates, exact: "_Exact | None", request: Request
    ) -> tuple[Result, ...]:
        """Order candidates: by their scores, these scaled by neighbourhoods, or by several modes."""
        if exact is None:
            return rank_candidates(self._reader, candidates, None, request.settings)
        judged, offsets = self._judged(question, exact, request), None
        if scaling_of(question, request.settings) == "csls":
            offsets = self._scaling.offsets(request.mode, candidates.rows)
        keys = None if judged is None else judged.keys
        keys = exact.scores.scores - offsets if offsets is not None else keys
        return rank_candidates(self._reader, candidates, exact.scores, request.settings, judged, keys)

    def _check_percentiles(self, questions: Sequence[Query], request: Request) -> None:
        """Raise UsageError unless all questions and modes have percentiles."""
        if not all(question.is_plain and question.is_whole for question in questions):
            raise UsageError("percentiles are of one whole image: boards, boxes and masks have none")
        for name in (request.mode, *request.settings.mode_weights):
            self.percentiles.required(name)
        if request.settings.min_percentile is not None:
            self.percentiles.check(request.mode, request.settings.min_percentile)

    def _judged(self, question: Query, exact: "_Exact", request: Request) -> Judgement | None:
        """Return the candidates on the scale of random pairs, which are whole images compared by cosine."""
        if not (question.is_plain and question.is_whole and request.settings.similarity == "cosine"):
            return None
        scored = {request.mode: exact.scores, **exact.others}
        return judge(self.percentiles, request.mode, scored, request.settings.mode_weights)

    def _candidates(self, question: Query, vectors: Mapping[str, NDArray[np.float32]], request: Request) -> Candidates:
        asking, settings = coarse_vectors(question, vectors), request.settings
        if settings.candidates is None and not question.is_whole:
            settings = replace(settings, candidates=REGION_CANDIDATES)
        excluded = sorted(self._excluded(question, request))
        return self.generator.generate(asking, request.mode, settings, excluded, request.allowed)

    def _excluded(self, question: Query, request: Request) -> set[int]:
        """Return the rows that are left out because the question's images are these items, or copies of them."""
        asked: set[tuple[str, str | None]] = set()
        if request.settings.exclude_self or request.settings.exclude_copies:
            asked |= {("uri", absolute_uri(picture.path)) for picture in question.pictures if picture.path}
        if request.settings.exclude_copies:
            asked |= {("sha256", picture.sha256) for picture in question.pictures}
        return {row for column, value in asked if value for row in self._reader.find(column, value)}

    def _rerank(
        self,
        context: ScoringContext,
        questions: Sequence[Query],
        own: QKV | Sequence[ModelInputs],
        small: Small,
        rows: Sequence[NDArray[np.int64]],
        request: Request,
        timing: SharedTiming,
    ) -> list["_Exact"]:
        """Score each question's rows exactly; they are read while tensors of the questions' images are computed.

        ``own`` are these tensors, or the images where they are still to be computed; those of ``small`` come last.
        """
        mode = request.mode
        begun = CandidateTensors.begin(
            context, mode, rows, self._mode_cache(request), request.on_progress, request.cancel
        )
        with timing.of("embed"):
            tensors = own if isinstance(own, QKV) else context.tensors(own, "query", mode)
        how = Comparison(request.settings.similarity, context.models.readout(mode))
        pictures = [picture for question in questions for picture in question.pictures]
        scored = as_scored(context, mode, pictures, small, tensors)
        images = [scored[place] for place in _places(questions)]
        parts = [scored_parts(question, own) for question, own in zip(questions, images, strict=True)]
        asked = [
            QueryTensors(view.qkv, own.tolist(), view.directions, view.mask)
            for mine, own in zip(parts, rows, strict=True)
            for part in mine
            for view in part.views
        ]
        found = iter(begun.scores(asked, rerank(asked, begun.sources, how)))
        return [
            _Exact(
                combine_scores(question, [_joined(part, found) for part in mine], how.similarity), _first_region(own)
            )
            for question, mine, own in zip(questions, parts, images, strict=True)
        ]

    def _located(
        self,
        context: ScoringContext,
        results: tuple[Result, ...],
        candidates: Candidates,
        exact: "_Exact | None",
        request: Request,
    ) -> tuple[Result, ...]:
        """Return the results with the boxes where they have the question's region."""
        if exact is None or exact.region is None or not results:
            return results
        row_of = dict(zip(self._reader.ids[candidates.rows].tolist(), candidates.rows.tolist(), strict=True))
        rows = [row_of[result.id] for result in results]
        cache, mode = self._mode_cache(request), request.mode
        boxes = find_boxes(context, mode, exact.region, rows, cache, request.on_progress, request.cancel)
        return tuple(replace(result, found_box=boxes.get(row)) for result, row in zip(results, rows, strict=True))

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
        results: tuple[Result, ...],
        exact: "_Exact | None",
        request: Request,
        timing_ms: Mapping[str, float],
    ) -> Results:
        scored = None if exact is None else exact.scores
        warning = self._model.warnings.get(request.mode)
        without_vector = self.generator.without_vector(request.mode, request.allowed)
        notes = search_notes(self._reader.layout.root, request.mode, scored, without_vector)
        if request.allowed is not None and not len(request.allowed):
            notes.append(Note("nothing_passes", "no image of the index passes the filter", facts={"images": 0}))
        partial = [note for picture in question.pictures for note in picture.notes()]
        return Results(
            results=results,
            query=question.about(),
            mode=request.mode,
            index=about_index(self._reader, self._recipe),
            filter=request.filter,
            timing_ms={**timing_ms, **({} if scored is None else scored.timing_ms)},
            notes=(*([Note("model", warning)] if warning else []), *partial, *notes, *note_on_gone(results)),
            **({} if scored is None else scored.counts),
        )


def _of_all_modes(by_mode: Mapping[str, Sequence[_Exact]]) -> list[_Exact]:
    """Return each question's scores in the first mode, with those in the others."""
    (mode, *others), every = by_mode, []
    for number, exact in enumerate(by_mode[mode]):
        beside = {other: by_mode[other][number].scores for other in others}
        every.append(replace(exact, scores=merged(exact.scores, beside), others=beside) if beside else exact)
    return every


def _joined(part: Scored, found: Iterator[CandidateScores]) -> CandidateScores:
    """Take the scores of a part's views and join them."""
    return join_views([next(found) for _ in part.views])


def _first_region(images: Sequence[Scored]) -> Scored | None:
    return next((image for image in images if image.directions is not None), None)


def _places(questions: Sequence[Query]) -> list[slice]:
    """Return the positions of each question's pictures among those of all."""
    ends = np.cumsum([len(question.pictures) for question in questions]).tolist()
    return [slice(end - len(question.pictures), end) for question, end in zip(questions, ends, strict=True)]
