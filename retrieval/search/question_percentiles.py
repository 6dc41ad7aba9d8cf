"""Percentiles of one question: among random pairs of the index, or among random images that the question itself scores.

The scores of an index's pairs are those of one whole image with another. A region, a board, and any question to an
index without such pairs have scores of another kind. They are compared with the scores that the same question gives
random images of the index, which costs a search of so many candidates more, so only searches that need it do so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from index_store.reader import IndexReader
from retrieval.calibration.percentiles import Percentiles
from retrieval.calibration.upkeep import LEAST_IMAGES
from retrieval.errors import UsageError
from retrieval.search.candidates import rows_of
from retrieval.search.index_percentiles import IndexPercentiles
from retrieval.search.judging import Judgement, judge
from retrieval.search.queries.query import Query
from retrieval.search.results import Note
from retrieval.search.tensors.candidate_tensors import CandidateScores
from retrieval.settings import SearchSettings

IMAGES = 512  # random images that a question scores: a share of half of them is known to 4 points
MOST_BYTES = 256 << 20  # of their stored tensors, so that models of large tensors are not read for minutes
_SEED = 2025

Sampled = Mapping[str, Percentiles]
"""By mode: the percentiles of one question among random images; empty where pairs of the index give them."""


class QuestionPercentiles:
    """Judges the scores of questions to one opened index; safe in many threads."""

    def __init__(self, reader: IndexReader, percentiles: IndexPercentiles) -> None:
        """Take an opened index and the percentiles of its pairs."""
        self._reader, self._percentiles = reader, percentiles

    def check(self, questions: Sequence[Query], mode: str, settings: SearchSettings) -> None:
        """Raise UsageError if the search needs percentiles that the index can't give, or that none can reach."""
        for question in questions if settings.needs_percentiles else ():
            if self._of_pairs(question, mode, settings):
                if settings.min_percentile is not None:
                    self._percentiles.check(mode, settings.min_percentile)
                continue
            count = len(self.sample(question, mode, settings))
            if count < LEAST_IMAGES:
                self._percentiles.required(mode)
                raise UsageError(
                    f"{self._reader.layout.root} has no percentiles of this question: they need the stored tensors of "
                    f"{LEAST_IMAGES} other images in each mode",
                    advice="fill-for-percentiles",
                )
            most = 100 * (1 - 1 / count)
            if settings.min_percentile is not None and settings.min_percentile > most:
                raise UsageError(
                    f"percentiles of this question end at {most:.2f}, where one of {count} random images is left: "
                    f"{settings.min_percentile} is out of reach"
                )

    def sample(self, question: Query, mode: str, settings: SearchSettings) -> NDArray[np.int64]:
        """Return random rows that a question is to score beside its candidates; none where that is not needed.

        Its own images and copies of them are not among these rows.
        """
        if not settings.needs_percentiles or self._of_pairs(question, mode, settings):
            return np.zeros(0, np.int64)
        modes = (mode, *settings.mode_weights)
        stored: NDArray[np.bool_] = np.logical_and.reduce([self._reader.has_tensors(name) for name in modes])
        row_bytes = sum(self._reader.row_bytes(name) for name in modes)
        count = max(LEAST_IMAGES, min(IMAGES, MOST_BYTES // max(1, row_bytes)))
        itself = sorted(rows_of(self._reader, question, copies=True))
        rows = np.random.default_rng(_SEED).permutation(np.flatnonzero(stored))[: count + len(itself)]
        return np.sort(rows[~np.isin(rows, itself)][:count])

    def judged(
        self, question: Query, mode: str, scored: Mapping[str, CandidateScores], settings: SearchSettings, own: Sampled
    ) -> Judgement | None:
        """Return candidates on the scale of random pairs or images; None if there is no such scale.

        Args:
            question: that was read.
            mode: of the search.
            scored: the candidates' scores in this mode and in those that the settings weigh.
            settings: of the search.
            own: the question's percentiles, if it scored a sample.
        """
        if own:
            return judge(own.get, mode, scored, settings.mode_weights)
        if not (question.is_plain and question.is_whole and settings.similarity == "cosine"):
            return None
        return judge(self._percentiles.of, mode, scored, settings.mode_weights)

    def _of_pairs(self, question: Query, mode: str, settings: SearchSettings) -> bool:
        known = all(self._percentiles.of(name) is not None for name in (mode, *settings.mode_weights))
        return known and question.is_plain and question.is_whole


def split_sample(scores: CandidateScores, candidates: int) -> tuple[CandidateScores, Percentiles | None]:
    """Return the scores of the first ``candidates``, and the percentiles of those after them, if there are any."""
    sample = scores.scores[candidates:][scores.is_scored[candidates:]]
    kept = replace(scores, scores=scores.scores[:candidates], is_scored=scores.is_scored[:candidates])
    return kept, Percentiles(sample.astype(np.float64)) if len(sample) else None


def notes_on_sample(own: Sampled) -> list[Note]:
    """Return the note that says which scale the percentiles of a question have."""
    if not own:
        return []
    count = next(iter(own.values())).pairs
    message = f"percentiles are among {count} random images of the index, scored by this question, not among pairs"
    return [Note("sampled_percentiles", message, facts={"images": count})]
