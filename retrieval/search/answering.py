"""Answer questions: encode their images, choose candidates, score these exactly, and make results of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from index_store.reader import IndexReader
from retrieval.devices.memory import tried_twice
from retrieval.encoding.loaded_models import ModelInputs
from retrieval.encoding.recipe import Recipe
from retrieval.encoding.timing import SharedTiming
from retrieval.errors import UsageError
from retrieval.models.modes import Outputs
from retrieval.models.registry import describe_extractor
from retrieval.progress import Cancellation, OnProgress
from retrieval.scoring.aas import QKV
from retrieval.search.candidates import CandidateGenerator, CandidateQuestion, Candidates, rows_of
from retrieval.search.exact_scores import ExactScores, of_all_modes
from retrieval.search.index_info import about_index
from retrieval.search.index_percentiles import IndexPercentiles
from retrieval.search.notes import note_on_gone, search_notes
from retrieval.search.queries.combining import coarse_vectors, combine_scores, join_views, scored_parts
from retrieval.search.queries.query import Query
from retrieval.search.question_percentiles import QuestionPercentiles, notes_on_sample
from retrieval.search.ranking import rank_candidates
from retrieval.search.regions.closer_look import look_closer
from retrieval.search.regions.region_views import Small, as_scored, small_views, with_subjects
from retrieval.search.reranking import QueryTensors
from retrieval.search.results import Note, Result, Results
from retrieval.search.scaling import LocalScaling, scaling_of
from retrieval.search.scoring_context import ScoringContext
from retrieval.search.tensors.candidate_tensors import CandidateScores, Scored
from retrieval.search.tensors.index_data import IndexData
from retrieval.search.tensors.local_scorer import ScoringRun
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

    @property
    def run(self) -> ScoringRun:
        """How candidates are scored."""
        keep = not self.settings.exhaustive
        return ScoringRun(self.mode, self.settings.similarity, keep, self.on_progress, self.cancel)


class Answerer:
    """Answers questions to one opened index; safe in many threads."""

    def __init__(self, reader: IndexReader, recipe: Recipe, device: torch.device, data: IndexData) -> None:
        """Take an index, its recipe, the device that encodes questions, and the place of vectors and tensors."""
        self._reader, self._recipe, self._device = reader, recipe, device
        self._model = describe_extractor(recipe.settings.model)
        self.generator = CandidateGenerator(reader, self._model.modes, data.vectors)
        self.scorer = data.scorer
        self.percentiles = IndexPercentiles(reader)
        self._judges = QuestionPercentiles(reader, self.percentiles)
        self._scaling = LocalScaling(reader, self.generator, self.percentiles)

    def answer(self, context: ScoringContext, questions: Sequence[Query], request: Request) -> list[Results]:
        """Answer some questions at once; the time that they spend together is shared out evenly.

        Raises:
            UsageError: percentiles are needed, and there are none for a question.
            MemoryFullError: memory ran out twice, the second time without candidates cached in memory.
        """
        if request.settings.look_closer and any(q.is_whole or not q.is_plain for q in questions):
            raise UsageError("a closer look needs one image with a box, a mask or a subject")
        if request.settings.scaling == "csls":
            self._scaling.required(request.mode)
        self._judges.check(questions, request.mode, request.settings)
        attempt = partial(self._answer, context, questions, request)
        return tried_twice(attempt, self.scorer.make_room, self._device)

    def _answer(self, context: ScoringContext, questions: Sequence[Query], request: Request) -> list[Results]:
        mode, timing = request.mode, SharedTiming(len(questions))
        with timing.of("embed"):
            questions = [with_subjects(context, mode, question) for question in questions]
            places = _places(questions)
            modes = (mode, *request.settings.mode_weights) if request.settings.rerank else ()
            outputs = Outputs(modes, self.generator.encoders(mode))  # others would cost passes and histograms
            pictures = [picture for question in questions for picture in question.pictures]
            small = small_views(context, modes, pictures)
            drawn = [*(picture.image for picture in pictures), *(view.drawing for view in small.values())]
            inputs = context.prepare(drawn, outputs)
            at_once = context.models.pools(outputs)  # else tensors are computed while candidates are read
            first = outputs if at_once else Outputs(encoders=outputs.encoders)
            encoded = context.encode(inputs if at_once else inputs[: len(pictures)], "query", first)
        with timing.of("coarse"):
            asking = [
                self._asking(question, {name: every[place] for name, every in encoded.vectors.items()}, request)
                for question, place in zip(questions, places, strict=True)
            ]
            found = self.generator.generate(asking, mode)
        scored: Sequence[ExactScores | None] = [None] * len(questions)
        if request.settings.rerank:
            samples = [self._judges.sample(question, mode, request.settings) for question in questions]
            rows = [np.concatenate([each.rows, sample]) for each, sample in zip(found, samples, strict=True)]
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
            every = of_all_modes(by_mode)
            scored = [exact.without_sample(len(each.rows)) for exact, each in zip(every, found, strict=True)]
        return self._of_scores(context, list(zip(questions, found, scored, strict=True)), request, timing)

    def _of_scores(
        self,
        context: ScoringContext,
        answers: Sequence[tuple[Query, Candidates, ExactScores | None]],
        request: Request,
        timing: SharedTiming,
    ) -> list[Results]:
        """Return the results of questions whose candidates are scored, with the places of their regions."""
        ranked = [self._ranked(question, each, exact, request) for question, each, exact in answers]
        if any(exact is not None and exact.region is not None for _, _, exact in answers):
            with timing.of("locate"):
                ranked = [
                    self._located(context, results, each, exact, request)
                    for results, (_, each, exact) in zip(ranked, answers, strict=True)
                ]
        if request.settings.look_closer:
            with timing.of("look closer"):
                ranked = [
                    self._looked_at(context, results, exact, request)
                    for results, (_, _, exact) in zip(ranked, answers, strict=True)
                ]
        return [
            self._results(question, results, exact, request, timing.ms)
            for results, (question, _, exact) in zip(ranked, answers, strict=True)
        ]

    def _ranked(
        self, question: Query, candidates: Candidates, exact: ExactScores | None, request: Request
    ) -> tuple[Result, ...]:
        """Order candidates: by their scores, these scaled by neighbourhoods, or by several modes."""
        if exact is None:
            return rank_candidates(self._reader, candidates, None, request.settings)
        wanted = replace(request.settings, k=max(request.settings.k, request.settings.look_closer))
        offsets, scored = None, {request.mode: exact.scores, **exact.others}
        judged = self._judges.judged(question, request.mode, scored, request.settings, exact.own)
        if scaling_of(question, request.settings) == "csls":
            offsets = self._scaling.offsets(request.mode, candidates.rows)
        keys = None if judged is None else judged.keys
        keys = exact.scores.scores - offsets if offsets is not None else keys
        return rank_candidates(self._reader, candidates, exact.scores, wanted, judged, keys)

    def _asking(
        self, question: Query, vectors: Mapping[str, NDArray[np.float32]], request: Request
    ) -> CandidateQuestion:
        """Return what the first stage is asked for."""
        asking, settings = coarse_vectors(question, vectors), request.settings
        if settings.candidates is None and not question.is_whole:
            settings = replace(settings, candidates=REGION_CANDIDATES)
        excluded: set[int] = set()
        if settings.exclude_self or settings.exclude_copies:
            excluded = rows_of(self._reader, question, settings.exclude_copies)
        return CandidateQuestion(asking, settings, sorted(excluded), request.allowed)

    def _rerank(
        self,
        context: ScoringContext,
        questions: Sequence[Query],
        own: QKV | Sequence[ModelInputs],
        small: Small,
        rows: Sequence[NDArray[np.int64]],
        request: Request,
        timing: SharedTiming,
    ) -> list[ExactScores]:
        """Score each question's rows exactly; they are read while tensors of the questions' images are computed.

        ``own`` are these tensors, or the images where they are still to be computed; those of ``small`` come last.
        """
        mode = request.mode
        begun = self.scorer.begin(context, rows, request.run)
        with timing.of("embed"):
            tensors = own if isinstance(own, QKV) else context.tensors(own, "query", mode)
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
        found, similarity = iter(begun.scores(asked)), request.settings.similarity
        return [
            ExactScores(
                combine_scores(question, [_joined(part, found) for part in mine], similarity),
                _first_region(own),
                mode,
            )
            for question, mine, own in zip(questions, parts, images, strict=True)
        ]

    def _located(
        self,
        context: ScoringContext,
        results: tuple[Result, ...],
        candidates: Candidates,
        exact: ExactScores | None,
        request: Request,
    ) -> tuple[Result, ...]:
        """Return the results with the boxes where they have the question's region."""
        if exact is None or exact.region is None or not results:
            return results
        row_of = dict(zip(self._reader.ids[candidates.rows].tolist(), candidates.rows.tolist(), strict=True))
        rows = [row_of[result.id] for result in results]
        boxes = self.scorer.boxes(context, exact.region, rows, request.run)
        return tuple(replace(result, found_box=boxes.get(row)) for result, row in zip(results, rows, strict=True))

    def _looked_at(
        self, context: ScoringContext, results: tuple[Result, ...], exact: ExactScores | None, request: Request
    ) -> tuple[Result, ...]:
        """Return the results after a closer look at the places of the region; a question without one keeps them."""
        if exact is not None and exact.region is not None:
            count = request.settings.look_closer
            results = look_closer(context, request.mode, exact.region, results, count, request.cancel)
        return results[: request.settings.k]

    def _results(
        self,
        question: Query,
        results: tuple[Result, ...],
        exact: ExactScores | None,
        request: Request,
        timing_ms: Mapping[str, float],
    ) -> Results:
        scored = None if exact is None else exact.scores
        warning = self._model.warnings.get(request.mode)
        without_vector = self.generator.without_vector(request.mode, request.allowed)
        notes = search_notes(self._reader.layout.root, request.mode, scored, without_vector)
        if request.allowed is not None and not len(request.allowed):
            notes.append(Note("nothing_passes", "no image of the index passes the filter", facts={"images": 0}))
        sampled = [] if exact is None else notes_on_sample(exact.own)
        partial = [note for picture in question.pictures for note in picture.notes()]
        return Results(
            results=results,
            query=question.about(),
            mode=request.mode,
            index=about_index(self._reader, self._recipe),
            filter=request.filter,
            timing_ms={**timing_ms, **({} if scored is None else scored.timing_ms)},
            notes=(
                *([Note("model", warning)] if warning else []),
                *partial,
                *notes,
                *note_on_gone(results),
                *sampled,
            ),
            **({} if scored is None else scored.counts),
        )


def _joined(part: Scored, found: Iterator[CandidateScores]) -> CandidateScores:
    """Take the scores of a part's views and join them."""
    return join_views([next(found) for _ in part.views])


def _first_region(images: Sequence[Scored]) -> Scored | None:
    return next((image for image in images if image.directions is not None), None)


def _places(questions: Sequence[Query]) -> list[slice]:
    """Return the positions of each question's pictures among those of all."""
    ends = np.cumsum([len(question.pictures) for question in questions]).tolist()
    return [slice(end - len(question.pictures), end) for question, end in zip(questions, ends, strict=True)]
