"""Exact scores of candidates, from tensors that the index or the cache holds, or that are computed on demand.

An image's tensors are computed from its file, and only if the file's SHA-256 is that of the indexed one. What can't be
had in any of these ways gets no score.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index_store.catalog import Item
from index_store.reader import IndexReader
from index_store.tensors.cache import CacheKey, TensorCache
from retrieval.encoding.batches import Failure, read_batches
from retrieval.encoding.fingerprint import tensors_digest
from retrieval.encoding.loaded_models import LoadedModels, ModelInputs, StoredBatch
from retrieval.encoding.stored_tensors import DecodeQKV
from retrieval.models.modes import Outputs
from retrieval.scoring.aas import QKV, AnyReadout
from retrieval.search.memory_cache import HotRows
from retrieval.search.reranking import READ_BYTES, Early, ReadRows, score_rows
from retrieval.types import Similarity

Arrays = Mapping[str, NDArray[Any]]
"""Tensors as the index's codec keeps them, of one item or ``[items, ...]``."""

OnComputed = Callable[[int, int], None]
"""Told (done, total) images while a search computes tensors."""

Encode = Callable[[Sequence[ModelInputs], Outputs], StoredBatch]
"""Encodes a batch in the gallery's role, as the index keeps it; safe in many threads."""


@dataclass(frozen=True)
class Machinery:
    """What computing needs: loaded models, how to call them, and how many images and threads at a time."""

    models: LoadedModels
    encode: Encode
    restore: DecodeQKV  # of the mode
    hot: HotRows | None  # the mode's, None: nothing is kept in memory
    batch: int
    workers: int


@dataclass(frozen=True)
class Scored:
    """One query's scores by position among the rows that were asked for, and how they were come by."""

    scores: NDArray[np.float32]
    is_scored: NDArray[np.bool_]  # False: no tensors could be had, and the score means nothing
    computed: int = 0
    cached: int = 0  # taken from the cache
    unkept: int = 0  # computed, and not to be kept
    timing_ms: Mapping[str, float] = field(default_factory=dict)  # the query's share

    @property
    def left_out(self) -> int:
        """Candidates without a score."""
        return int((~self.is_scored).sum())


class CandidateScorer:
    """Scores queries against candidates of one mode; made anew for every search: :meth:`begin`, then :meth:`score`."""

    def __init__(
        self,
        reader: IndexReader,
        cache: TensorCache,
        machinery: Machinery,
        mode: str,
        similarity: Similarity,
        readout: AnyReadout,
    ) -> None:
        """Take what all candidates have in common."""
        self._reader, self._cache, self._machinery, self._mode = reader, cache, machinery, mode
        self._similarity, self._readout = similarity, readout
        self._queries: Sequence[QKV] = ()
        self._rows: Sequence[NDArray[np.int64]] = ()  # of the index, for every query
        self._wanted: list[frozenset[int]] = []  # the same
        self._scores: list[dict[int, float]] = []  # likewise, by row
        self._stored: list[int] = []  # of all the rows, each once, those that the index holds tensors of ...
        self._lacking: list[int] = []  # ... and those that it does not
        self._computed: set[int] = set()
        self._cached: set[int] = set()
        self._unkept: set[int] = set()
        self._timing_ms = {"read": 0.0, "rerank": 0.0, "compute": 0.0}
        self._early: Early | None = None

    @cached_property
    def _digest(self) -> str:
        return tensors_digest(self._machinery.models.fingerprint(), self._mode)

    def begin(self, rows: Sequence[NDArray[np.int64]]) -> None:
        """Take each query's rows of the index, int64 ``[candidates]``, and begin to read them in another thread."""
        self._rows, self._wanted = rows, [frozenset(each.tolist()) for each in rows]
        every = np.array(list(dict.fromkeys(np.concatenate(rows).tolist())), np.int64)
        held = self._reader.has_tensors(self._mode)[every]
        self._stored, self._lacking = every[held].tolist(), every[~held].tolist()
        hot = self._machinery.hot
        cold = self._stored if hot is None else [row for row in self._stored if hot.get(row) is None]
        if cold:
            first = cold[: max(1, READ_BYTES // self._reader.row_bytes(self._mode))]
            self._early = Early.begin(first, self._read, self._machinery.models.device)

    def score(self, queries: Sequence[QKV], on_computed: OnComputed) -> list[Scored]:
        """Score the rows that were begun with against their queries, one item each, float32."""
        self._queries, self._scores = queries, [{} for _ in queries]
        self._score(self._stored, self._read, self._machinery.hot, self._early)
        items = dict(zip(self._lacking, self._reader.items(self._lacking), strict=True))
        missing = self._score_cached(items)
        if missing:
            self._compute({row: items[row] for row in missing}, on_computed)
        return [self._of_query(number, mine.tolist()) for number, mine in enumerate(self._rows)]

    def _read(self, rows: Sequence[int]) -> Arrays:
        return self._reader.attention(self._mode, rows)

    def _of_query(self, number: int, rows: Sequence[int]) -> Scored:
        scores, mine = self._scores[number], self._wanted[number]
        return Scored(
            np.array([scores.get(row, 0.0) for row in rows], np.float32),
            np.array([row in scores for row in rows], bool),
            computed=len(self._computed & mine),
            cached=len(self._cached & mine),
            unkept=len(self._unkept & mine),
            timing_ms={name: spent / len(self._queries) for name, spent in self._timing_ms.items()},
        )

    def _score(
        self, rows: Sequence[int], read: ReadRows, hot: HotRows | None = None, early: Early | None = None
    ) -> None:
        if not rows:
            return
        wanted = [[row for row in rows if row in mine] for mine in self._wanted]
        how = (self._similarity, self._readout, self._machinery.restore)
        found = score_rows(self._queries, wanted, read, *how, hot, early)
        for scores, mine, values in zip(self._scores, wanted, found.scores, strict=True):
            scores |= zip(mine, values.tolist(), strict=True)
        self._timing_ms["read"] += found.read_ms
        self._timing_ms["rerank"] += found.score_ms

    def _score_given(self, given: Mapping[int, Arrays]) -> None:
        """Score rows whose arrays are at hand."""
        places = {row: place for place, row in enumerate(given)}
        first = next(iter(given.values()))
        stacked = {name: np.stack([each[name] for each in given.values()]) for name in first}
        self._score(
            list(given), lambda rows: {name: array[[places[row] for row in rows]] for name, array in stacked.items()}
        )

    def _score_cached(self, items: Mapping[int, Item]) -> list[int]:
        """Score what the cache holds, some at a time, and return the rows that it lacks."""
        given: dict[int, Arrays] = {}
        size = 0
        for row, item in items.items():
            start = perf_counter()
            found = self._cache.get(self._key(item))
            self._timing_ms["read"] += 1e3 * (perf_counter() - start)
            if found is None:
                continue
            self._cached.add(row)
            given[row] = found
            size += sum(array.nbytes for array in found.values())
            if size >= READ_BYTES:
                self._score_given(given)
                given, size = {}, 0
        if given:
            self._score_given(given)
        return [row for row in items if row not in self._cached]

    def _compute(self, items: Mapping[int, Item], on_computed: OnComputed) -> None:
        """Compute, score and keep what nothing holds."""
        on_computed(0, len(items))
        done = 0
        for given, count in self._batches(items):
            if given:
                self._score_given(given)
                start = perf_counter()
                for row, arrays in given.items():
                    if not self._cache.put(self._key(items[row]), arrays) and self._cache.is_wanted:
                        self._unkept.add(row)
                self._computed |= given.keys()
                self._timing_ms["compute"] += 1e3 * (perf_counter() - start)
            done += count
            on_computed(done, len(items))

    def _batches(self, items: Mapping[int, Item]) -> Iterator[tuple[dict[int, Arrays], int]]:
        """Yield batches: arrays by row of the images that could be used, and how many images there were."""
        machinery, need = self._machinery, Outputs(modes=(self._mode,))
        order = list(items)
        batches = read_batches(
            [Path(item.uri) for item in items.values()],
            machinery.batch,
            machinery.workers,
            machinery.models.rules,
            partial(machinery.models.prepare, outputs=need),
        )
        start = perf_counter()
        for batch in batches:
            now, order = order[: len(batch.files)], order[len(batch.files) :]
            good = {
                row: outcome[1]
                for row, outcome in zip(now, batch.outcomes, strict=True)
                if not isinstance(outcome, Failure) and outcome[0].sha256 == items[row].sha256
            }
            given: dict[int, Arrays] = {}
            if good:
                stored = machinery.encode(list(good.values()), need).tensors[self._mode]
                given = {row: {name: array[n] for name, array in stored.items()} for n, row in enumerate(good)}
            self._timing_ms["compute"] += 1e3 * (perf_counter() - start)
            yield given, len(now)
            start = perf_counter()

    def _key(self, item: Item) -> CacheKey:
        return CacheKey(self._mode, self._digest, item.id)


def search_notes(root: Path, mode: str, scored: Scored | None, without_vector: int) -> list[str]:
    """Return what a user should know of how candidates of the index at ``root`` were found and scored."""
    notes = []
    if scored is not None and scored.computed:
        notes.append(
            f"the {mode} tensors of {scored.computed} candidates were not in the index and have been computed; compute "
            "those of all images beforehand with: diffsim-index fill"
        )
    if scored is not None and scored.unkept:
        notes.append(
            f"{scored.unkept} of them could not be kept in {root / 'cache'} (it may not be written, the disk is full, "
            "or --max-cache is less): the next search computes them again"
        )
    if scored is not None and scored.left_out:
        notes.append(
            f"{scored.left_out} candidates are left out: their {mode} tensors are not in the index, and their files "
            "can't be read or have changed since; bring it up to date with: diffsim-index build SOURCE"
        )
    if without_vector:
        notes.append(
            f"{without_vector} images lack a vector of the coarse stage, and only --exhaustive is sure to find them; "
            "complete them with: diffsim-index fill"
        )
    return notes
