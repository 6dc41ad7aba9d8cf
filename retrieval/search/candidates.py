"""Candidate generation, the first stage of a search: the images that the exact score will order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from index_store.catalog import absolute_uri
from index_store.files import corrupt
from index_store.reader import IndexReader
from index_store.vectors.exact import Ranked
from retrieval.encoding.coarse_encoders import encoders_of_mode
from retrieval.errors import UsageError
from retrieval.models.modes import Mode
from retrieval.search.coarse_vectors import CoarseVectors, CosinesAsk, NearestAsk, Rows
from retrieval.search.queries.query import Query
from retrieval.settings import CANDIDATES, SearchSettings

RRF_CONSTANT = 60  # Cormack, Clarke and Büttcher, 2009: damps the first ranks so that no encoder decides alone

Vectors = Mapping[str, NDArray[np.float32]]
"""The vectors ``[vectors, dim]`` that ask for one question's candidates, by encoder; each of them asks alone."""


@dataclass(frozen=True)
class Candidates:
    """Rows of the index, best first, and their mean cosines over the encoders."""

    rows: NDArray[np.int64]
    # None: the index has no vectors. NaN: the image has none, which only an exhaustive search lets pass.
    similarities: NDArray[np.float32] | None


@dataclass(frozen=True)
class CandidateQuestion:
    """One question to the first stage."""

    vectors: Vectors
    wanted: SearchSettings  # says how many candidates
    excluded: Sequence[int] = ()  # rows of copies of the query: a few
    allowed: Rows | None = None  # rows that pass a filter, ascending, all of which are compared; None: all rows

    @property
    def count(self) -> int:
        """How many candidates are wanted of a search that does not score every image."""
        return max(self.wanted.candidates or CANDIDATES, self.wanted.k)

    def limited(self) -> "CandidateQuestion":
        """Return the question with its excluded rows taken from the allowed ones, where there are such."""
        if self.allowed is None:
            return self
        return replace(self, allowed=np.setdiff1d(self.allowed, self.excluded), excluded=())

    def rows(self, items: int) -> Rows:
        """Return all rows, of an index of ``items``, that may be candidates."""
        return np.delete(np.arange(items), self.excluded) if self.allowed is None else self.allowed


class CandidateGenerator:
    """Finds the candidates of queries in one opened index; safe in many threads."""

    def __init__(self, reader: IndexReader, modes: Mapping[str, Mode], coarse: CoarseVectors) -> None:
        """Take an index, its model's modes, and its vectors."""
        self._reader, self._modes, self._coarse = reader, modes, coarse
        self._encoders: dict[str, tuple[str, ...]] = {}
        self._without_vector: dict[str, int] = {}

    def generate(
        self, questions: Sequence[CandidateQuestion], mode: str, encoders: Sequence[str] | None = None
    ) -> list[Candidates]:
        """Return each question's candidates, as if only its allowed rows were in the index, and no excluded ones.

        Args:
            questions: which are asked together.
            mode: whose encoders choose.
            encoders: that choose; None: those of the mode.

        Raises:
            UsageError: the index has no vectors, and the ranking by vectors alone is wanted.
        """
        encoders = self.encoders(mode) if encoders is None else encoders
        if not encoders and not all(question.wanted.rerank for question in questions):
            root = self._reader.layout.root
            raise UsageError(f"{root} has no coarse ranking: it was built without encoders", advice="no-coarse-ranking")
        questions = [question.limited() for question in questions]
        found = [Candidates(question.rows(len(self._reader)), None) for question in questions]
        asking = [number for number, each in enumerate(found) if len(each.rows) and encoders]
        self._check_dims(encoders, [questions[number] for number in asking])
        asked = [questions[number] for number in asking]
        chosen, rankings = self._chosen(encoders, asked, [found[number].rows for number in asking])
        cosines = self._cosines(encoders, asked, chosen, rankings)
        for number, rows, of_encoders in zip(asking, chosen, cosines, strict=True):
            has_vector = np.stack([self._reader.has_vector(name)[rows] for name in encoders])
            found[number] = Candidates(rows, _mean_where(of_encoders, has_vector))
        return found

    def _chosen(
        self, encoders: Sequence[str], questions: Sequence[CandidateQuestion], every: Sequence[Rows]
    ) -> tuple[list[Rows], list[list[Ranked]]]:
        """Return each question's candidates, best first, and the rankings of its vectors, encoder by encoder.

        ``every`` has the candidates of an exhaustive search, which ranks nothing.
        """
        asks = [
            NearestAsk(name, vector, question.count + len(question.excluded), question.allowed)
            for question in questions
            if not question.wanted.exhaustive
            for name in encoders
            for vector in question.vectors[name]
        ]
        nearest = iter(self._coarse.nearest(asks) if asks else ())
        chosen, rankings = list[Rows](), list[list[Ranked]]()
        for question, rows in zip(questions, every, strict=True):
            own = [] if question.wanted.exhaustive else [next(nearest) for e in encoders for _ in question.vectors[e]]
            if not question.wanted.exhaustive:
                rows = fuse_rankings([_without(ranked, question) for ranked, _ in own], question.count)
            chosen.append(rows)
            rankings.append(own)
        return chosen, rankings

    def _cosines(
        self,
        encoders: Sequence[str],
        questions: Sequence[CandidateQuestion],
        chosen: Sequence[Rows],
        rankings: Sequence[Sequence[Ranked]],
    ) -> list[NDArray[np.float32]]:
        """Return the cosines ``[encoders, rows]`` of each question's ``chosen`` rows; asks for those not ranked."""
        cosines = [np.full((len(encoders), len(rows)), np.nan, np.float32) for rows in chosen]
        asks, places = [], []
        for number, (question, rows, own) in enumerate(zip(questions, chosen, rankings, strict=True)):
            for at, name in enumerate(encoders):
                if len(own) == len(encoders):  # one vector each; of several, each row's best counts
                    cosines[number][at] = _ranked_cosines(rows, own[at])
                missing = np.isnan(cosines[number][at])
                if missing.any():
                    asks.append(CosinesAsk(name, question.vectors[name], rows[missing]))
                    places.append((number, at, missing))
        answers = self._coarse.cosines(asks) if asks else ()
        for (number, at, missing), answer in zip(places, answers, strict=True):
            cosines[number][at, missing] = answer
        return cosines

    def _check_dims(self, encoders: Sequence[str], questions: Sequence[CandidateQuestion]) -> None:
        for name in encoders if questions else ():
            dim = self._coarse.dim(name)
            if any(question.vectors[name].shape[-1] != dim for question in questions):
                raise corrupt(self._reader.layout.root, f"holds vectors of {name} with {dim} numbers each")

    def load(self) -> None:
        """Open the vector index of every mode's encoders now, which the first search of each would do."""
        for encoder in dict.fromkeys(encoder for mode in self._modes for encoder in self.encoders(mode)):
            self._coarse.dim(encoder)

    def encoders(self, mode: str) -> tuple[str, ...]:
        """Return the encoders that find a mode's candidates: the mode's own, else all that the index has vectors of."""
        if mode not in self._encoders:
            self._encoders[mode] = encoders_of_mode(self._reader, self._modes, mode)
        return self._encoders[mode]

    def vectors(self, encoder: str, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return an encoder's vectors of ``rows``, float32 of norm 1 ``[rows, dim]``; zeros for a row without one."""
        return self._coarse.vectors(encoder, rows)

    def without_vector(self, mode: str, allowed: NDArray[np.int64] | None = None) -> int:
        """Return how many images, of the ``allowed`` rows or of all, miss a vector of one of the mode's encoders."""
        if allowed is not None:
            has = [self._reader.has_vector(name)[allowed] for name in self.encoders(mode)]
            return int((~np.all(has, axis=0)).sum()) if has else 0
        if mode not in self._without_vector:
            has = [self._reader.has_vector(name) for name in self.encoders(mode)]
            self._without_vector[mode] = int((~np.all(has, axis=0)).sum()) if has else 0
        return self._without_vector[mode]


def _without(rows: Rows, question: CandidateQuestion) -> Rows:
    """Return the nearest ``rows`` that are not excluded, as many as are wanted."""
    return rows[~np.isin(rows, question.excluded)][: question.count] if question.excluded else rows


def _ranked_cosines(rows: Rows, ranked: Ranked) -> NDArray[np.float32]:
    """Return the cosines of ``rows``, each once, as they were ``ranked``; NaN for others."""
    found = np.full(len(rows), np.nan, np.float32)
    _, mine, theirs = np.intersect1d(rows, ranked[0], assume_unique=True, return_indices=True)
    found[mine] = ranked[1][theirs]
    return found


def _mean_where(cosines: NDArray[np.float32], has_vector: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the mean over encoders ``[rows]`` of the cosines ``[encoders, rows]`` that there are; NaN for none."""
    if has_vector.all():
        whole: NDArray[np.float32] = np.mean(cosines, axis=0, dtype=np.float32)
        return whole
    known = has_vector.sum(axis=0)
    means = np.where(known > 0, np.where(has_vector, cosines, 0).sum(axis=0) / np.maximum(known, 1), np.nan)
    return means.astype(np.float32)


def fuse_rankings(rankings: Sequence[NDArray[np.int64]], count: int) -> NDArray[np.int64]:
    """Return the ``count`` best rows by reciprocal rank fusion, ``sum over rankings of 1 / (60 + rank)``.

    Args:
        rankings: rows of each encoder, best first; a row that is missing from a ranking gets nothing from it.
        count: how many rows are wanted.

    Returns:
        int64 ``[min(count, rows in all)]``, best first; ties by row number, lowest first.
    """
    rows = np.unique(np.concatenate(rankings)) if rankings else np.empty(0, np.int64)
    shares = np.zeros((len(rankings), len(rows)))
    for encoder, ranking in enumerate(rankings):
        shares[encoder, np.searchsorted(rows, ranking)] = 1.0 / (RRF_CONSTANT + 1.0 + np.arange(len(ranking)))
    # Sorted before they are added, so that rounding, and with it a tie, does not depend on the order of encoders.
    scores = np.sort(shares, axis=0).sum(axis=0)
    order = np.lexsort((rows, -scores))[:count]
    fused: NDArray[np.int64] = rows[order]
    return fused


def rows_of(reader: IndexReader, question: Query, copies: bool) -> set[int]:
    """Return the rows that are images of a question that was read, and those with their bytes if ``copies``."""
    asked = {("uri", absolute_uri(picture.path)) for picture in question.pictures if picture.path}
    if copies:
        asked |= {("sha256", picture.sha256) for picture in question.pictures if picture.sha256}
    return {row for column, value in asked for row in reader.find(column, value)}
