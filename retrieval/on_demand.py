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

from index_store.cache import CacheKey, TensorCache
from index_store.catalog import Item
from index_store.reader import IndexReader
from retrieval.aas import QKV, AnyReadout
from retrieval.hot import HotRows
from retrieval.ingest import Failure, read_batches
from retrieval.models import Models, Prepared, Stored, tensors_digest
from retrieval.modes import Need
from retrieval.rerank import READ_BYTES, Early, ReadRows, Restore, score_rows
from retrieval.vocabulary import Similarity

Arrays = Mapping[str, NDArray[Any]]
"""One item's tensors, as the index's codec keeps them."""

OnComputed = Callable[[int, int], None]
"""Told (done, total) images while a search computes tensors."""

Encode = Callable[[Sequence[Prepared], Need], Stored]
"""Encodes a batch in the gallery's role, as the index keeps it; safe in many threads."""


@dataclass(frozen=True)
class Machinery:
    """What computing needs: loaded models, how to call them, and how many images and threads at a time."""

    models: Models
    encode: Encode
    restore: Restore  # of the mode
    hot: HotRows | None  # the mode's, None: nothing is kept in memory
    batch: int
    workers: int


@dataclass
class Scored:
    """Scores by position among the rows that were asked for, and how they were come by."""

    scores: NDArray[np.float32]
    is_scored: NDArray[np.bool_]  # False: no tensors could be had, and the score means nothing
    computed: int = 0
    cached: int = 0  # taken from the cache
    unkept: int = 0  # computed, and not to be kept
    timing_ms: dict[str, float] = field(default_factory=lambda: {"read": 0.0, "rerank": 0.0, "compute": 0.0})

    @property
    def left_out(self) -> int:
        """Candidates without a score."""
        return int((~self.is_scored).sum())


class CandidateScorer:
    """Scores one query against candidates of one mode; made anew for every search."""

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
        self._query: QKV
        self._result: Scored
        self._early: Early | None = None

    @cached_property
    def _digest(self) -> str:
        return tensors_digest(self._machinery.models.fingerprint(), self._mode)

    def begin(self, rows: NDArray[np.int64]) -> None:
        """Begin to read what :meth:`score` will read first of ``rows``, in another thread."""
        hot = self._machinery.hot
        stored = rows[self._reader.has_tensors(self._mode)[rows]].tolist()
        cold = stored if hot is None else [row for row in stored if hot.get(row) is None]
        if cold:
            first = cold[: max(1, READ_BYTES // self._reader.row_bytes(self._mode))]
            self._early = Early.begin(first, partial(self._reader.attention, self._mode))

    def score(self, query: QKV, rows: NDArray[np.int64], on_computed: OnComputed) -> Scored:
        """Score ``rows`` of the index, int64 ``[candidates]``, against ``query``, one item, float32."""
        self._query = query
        self._result = Scored(np.zeros(len(rows), np.float32), np.zeros(len(rows), bool))
        held = self._reader.has_tensors(self._mode)[rows]
        stored = np.flatnonzero(held)
        read = partial(self._reader.attention, self._mode)
        self._score(stored, rows[stored].tolist(), read, self._machinery.hot, self._early)
        lacking = np.flatnonzero(~held)
        items = dict(zip(lacking.tolist(), self._reader.items(rows[lacking]), strict=True))
        missing = self._score_cached(items)
        if missing:
            self._compute({position: items[position] for position in missing}, on_computed)
        return self._result

    def _score(
        self,
        positions: Sequence[int] | NDArray[np.int64],
        rows: Sequence[int],
        read: ReadRows,
        hot: HotRows | None = None,
        early: Early | None = None,
    ) -> None:
        if not len(rows):
            return
        restore = self._machinery.restore
        found = score_rows(self._query, rows, read, self._similarity, self._readout, restore, hot, early)
        self._result.scores[positions], self._result.is_scored[positions] = found.scores, True
        self._result.timing_ms["read"] += found.read_ms
        self._result.timing_ms["rerank"] += found.score_ms

    def _score_given(self, positions: Sequence[int], arrays: Sequence[Arrays]) -> None:
        """Score items whose arrays are at hand, one mapping an item."""
        stacked = {name: np.stack([each[name] for each in arrays]) for name in arrays[0]}
        self._score(
            positions, range(len(arrays)), lambda rows: {name: array[list(rows)] for name, array in stacked.items()}
        )

    def _score_cached(self, items: Mapping[int, Item]) -> list[int]:
        """Score what the cache holds, some at a time, and return the positions of the rest."""
        missing: list[int] = []
        positions: list[int] = []
        arrays: list[Arrays] = []
        size = 0
        for position, item in items.items():
            start = perf_counter()
            found = self._cache.get(self._key(item))
            self._result.timing_ms["read"] += 1e3 * (perf_counter() - start)
            if found is None:
                missing.append(position)
                continue
            positions.append(position)
            arrays.append(found)
            size += sum(array.nbytes for array in found.values())
            if size >= READ_BYTES:
                self._score_given(positions, arrays)
                positions, arrays, size = [], [], 0
        if arrays:
            self._score_given(positions, arrays)
        self._result.cached = len(items) - len(missing)
        return missing

    def _compute(self, items: Mapping[int, Item], on_computed: OnComputed) -> None:
        """Compute, score and keep what nothing holds."""
        on_computed(0, len(items))
        done = 0
        for positions, arrays, count in self._computed(items):
            if arrays:
                self._score_given(positions, arrays)
                self._result.computed += len(arrays)
                start = perf_counter()
                kept = [self._cache.put(self._key(items[p]), each) for p, each in zip(positions, arrays, strict=True)]
                self._result.unkept += kept.count(False) * self._cache.is_wanted
                self._result.timing_ms["compute"] += 1e3 * (perf_counter() - start)
            done += count
            on_computed(done, len(items))

    def _computed(self, items: Mapping[int, Item]) -> Iterator[tuple[list[int], list[Arrays], int]]:
        """Yield batches: positions and arrays of the images that could be used, and how many there were."""
        machinery, need = self._machinery, Need(modes=(self._mode,))
        order = list(items)
        batches = read_batches(
            [Path(item.uri) for item in items.values()],
            machinery.batch,
            machinery.workers,
            machinery.models.rules,
            partial(machinery.models.prepare, need=need),
        )
        start = perf_counter()
        for batch in batches:
            now, order = order[: len(batch.files)], order[len(batch.files) :]
            good = [
                (position, outcome[1])
                for position, outcome in zip(now, batch.outcomes, strict=True)
                if not isinstance(outcome, Failure) and outcome[0].sha256 == items[position].sha256
            ]
            arrays: list[Arrays] = []
            if good:
                stored = machinery.encode([prepared for _, prepared in good], need).tensors[self._mode]
                arrays = [{name: array[n] for name, array in stored.items()} for n in range(len(good))]
            self._result.timing_ms["compute"] += 1e3 * (perf_counter() - start)
            yield [position for position, _ in good], arrays, len(now)
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
            f"{without_vector} images lack a vector of the coarse stage and are found by --exhaustive only; complete "
            "them with: diffsim-index fill"
        )
    return notes
