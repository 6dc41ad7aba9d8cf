"""Answer questions with texts: a text alone ranks by vectors; beside images it chooses what they may find."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from index_store.reader import IndexReader
from retrieval.encoding.recipe import Recipe
from retrieval.encoding.timing import SharedTiming
from retrieval.search.answering import Answerer, Request
from retrieval.search.index_info import about_index
from retrieval.search.notes import note_on_gone
from retrieval.search.queries.query import Query
from retrieval.search.ranking import rank_candidates
from retrieval.search.results import Note, Results
from retrieval.search.scoring_context import ScoringContext
from retrieval.search.text.encoders import TextRanker
from retrieval.settings import EngineSettings


class TextAnswerer:
    """Answers questions with and without texts; those without go straight to the :class:`Answerer`."""

    def __init__(self, reader: IndexReader, recipe: Recipe, settings: EngineSettings, answerer: Answerer) -> None:
        self._reader, self._recipe, self._answerer = reader, recipe, answerer
        self._ranker = TextRanker(reader, recipe, settings, answerer.generator)

    def answer(self, load: Callable[[], ScoringContext], questions: Sequence[Query], request: Request) -> list[Results]:
        """Answer questions in their order; ``load`` returns the models for images, where there are any.

        Raises:
            UsageError: there is a text, and no encoder of the index has text.
            ModelError: the files of a text tower are missing or damaged.
        """
        found: dict[int, Results] = {}
        for texts in dict.fromkeys(tuple(question.texts) for question in questions):
            mine = [place for place, question in enumerate(questions) if tuple(question.texts) == texts]
            with_images = [place for place in mine if questions[place].images]
            if with_images:
                asked = [questions[place] for place in with_images]
                found |= zip(with_images, self._of_images(load(), asked, texts, request), strict=True)
            found |= {place: self._of_text(texts, request) for place in mine if not questions[place].images}
        return [found[place] for place in range(len(questions))]

    def _of_images(
        self, context: ScoringContext, questions: Sequence[Query], texts: Sequence[str], request: Request
    ) -> list[Results]:
        """Answer questions with images, among the images that are nearest to their texts."""
        if not texts:
            return self._answerer.answer(context, questions, request)
        every = self._ranker.held(request.allowed)
        kept = max(request.settings.k, math.ceil(request.settings.text_share * every))
        wanted = replace(request.settings, candidates=kept)
        rows = self._ranker.rank(texts, request.mode, wanted, request.allowed).rows
        rows.sort()
        note = Note(
            "text_narrowed",
            f"the text chose {len(rows)} of {every} images by {self._names}; the images that ask ranked these",
            facts={"images": len(rows)},
        )
        answers = self._answerer.answer(context, questions, replace(request, allowed=rows))
        return [replace(each, notes=(note, *each.notes)) for each in answers]

    def _of_text(self, texts: Sequence[str], request: Request) -> Results:
        timing, settings = SharedTiming(1), replace(request.settings, candidates=request.settings.k, exhaustive=False)
        with timing.of("coarse"):
            candidates = self._ranker.rank(texts, request.mode, settings, request.allowed)
        ranked = rank_candidates(self._reader, candidates, None, settings)
        note = Note("text_alone", f"AAS has no text: {self._names} alone ranked these, by the cosine of text and image")
        return Results(
            results=ranked,
            query=Query((), texts=texts).about(),
            mode=request.mode,
            index=about_index(self._reader, self._recipe),
            timing_ms=timing.ms,
            notes=(note, *note_on_gone(ranked)),
            filter=request.filter,
        )

    @property
    def _names(self) -> str:
        return " and ".join(self._ranker.encoders())
