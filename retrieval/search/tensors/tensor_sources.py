"""Where candidates' tensors come from: memory, the index, the index's cache on disk, or the image files.

A file's tensors are computed only if the file still has the indexed SHA-256. Candidates that no source has get no
exact score.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from index_store.catalog import Item
from index_store.codecs import Codec, all_finite
from index_store.tensors.cache import CacheKey, TensorCache
from retrieval.devices.precision import SCORING_PRECISION
from retrieval.devices.transfer import Upload, begin_upload, upload
from retrieval.encoding.batches import Failure, Outcome, read_batches
from retrieval.encoding.loaded_models import ModelInputs
from retrieval.encoding.stored_tensors import DecodeQKV
from retrieval.models.modes import Outputs
from retrieval.progress import Cancellation, OnProgress, Progress
from retrieval.search.reranking import Part
from retrieval.search.scoring_context import ScoringContext
from retrieval.search.tensors.chunks import CachedChunk, Chunk, StoredChunk
from retrieval.search.tensors.memory_cache import CachedCandidate, ModeCache

CHUNK_ROWS = 512  # at most, one chunk ahead of the scoring

StoredArrays = Mapping[str, NDArray[Any]]
"""Tensors as the index's codec stores them, of one item or ``[items, ...]``."""

ReadRows = Callable[[Sequence[int]], StoredArrays]
"""Returns the stored arrays ``[rows, ...]`` of rows of the index."""


@dataclass(frozen=True)
class MemoryTensors:
    """Candidates in the memory cache, by row."""

    candidates: Mapping[int, CachedCandidate]
    part: Part = "read"

    def chunks(self) -> Iterator[Chunk]:
        """See :class:`retrieval.search.reranking.TensorSource`."""
        if self.candidates:
            yield CachedChunk(list(self.candidates), list(self.candidates.values()))


@dataclass
class StoredTensors:
    """Candidates whose tensors the index stores; another thread reads one chunk ahead."""

    rows: Sequence[int]  # of the index
    read: ReadRows  # called in the other thread
    decode: DecodeQKV
    device: torch.device  # where candidates are scored
    row_bytes: int = 0  # of one row as stored; 0: unknown, and only CHUNK_ROWS bounds a chunk
    cache: ModeCache | None = None  # where scored candidates are kept
    part: Part = "read"

    def __post_init__(self) -> None:
        limit = SCORING_PRECISION[self.device.type].chunk_bytes
        size = min(CHUNK_ROWS, max(1, limit // self.row_bytes)) if self.row_bytes else CHUNK_ROWS
        self._waiting = [self.rows[start : start + size] for start in range(0, len(self.rows), size)]
        self._threads: ThreadPoolExecutor | None = None
        self._ahead: tuple[Sequence[int], Future[Upload]] | None = None

    def begin(self) -> None:
        """Begin to read the first chunk, so that it is at hand when the queries' tensors are."""
        if self._threads is None and self._waiting:
            self._threads = ThreadPoolExecutor(1, thread_name_prefix="read-ahead")
            self._read_ahead(self._threads)

    def chunks(self) -> Iterator[Chunk]:
        """See :class:`retrieval.search.reranking.TensorSource`; may be called once."""
        self.begin()
        if self._threads is None:
            return
        with self._threads as threads:
            while self._ahead is not None:
                rows, reading = self._ahead
                arrays = reading.result().tensors()
                self._read_ahead(threads)
                yield StoredChunk(rows, arrays, self.decode, self.cache)

    def _read_ahead(self, threads: ThreadPoolExecutor) -> None:
        self._ahead = None
        if self._waiting:
            rows = self._waiting.pop(0)
            self._ahead = rows, threads.submit(self._fetch, rows)

    def _fetch(self, rows: Sequence[int]) -> Upload:
        return begin_upload(self.read(rows), self.device)


@dataclass
class CachedTensors:
    """Candidates whose tensors an earlier search computed and kept in the index's folder."""

    cache: TensorCache
    keys: Mapping[int, CacheKey]  # by row
    decode: DecodeQKV
    device: torch.device
    codec: Codec
    found: set[int] = field(default_factory=set)  # fills while chunks() is read
    part: Part = "read"

    @property
    def missing(self) -> list[int]:
        """The rows that the cache does not hold, or holds damaged; known once :meth:`chunks` is exhausted."""
        return [row for row in self.keys if row not in self.found]

    def _fits(self, arrays: StoredArrays, other: StoredArrays) -> bool:
        """Say whether a file holds finite arrays of the codec, shaped like ``other``: else they are computed anew."""
        dtypes = {array.name: np.dtype(array.dtype) for array in self.codec.arrays}
        alike = all(array.shape == other[name].shape for name, array in arrays.items() if name in other)
        same = {name: array.dtype for name, array in arrays.items()} == dtypes
        return alike and same and all(all_finite(array) for array in arrays.values())

    def chunks(self) -> Iterator[Chunk]:
        """See :class:`retrieval.search.reranking.TensorSource`."""
        given: dict[int, StoredArrays] = {}
        size = 0
        for row, key in self.keys.items():
            arrays = self.cache.get(key)
            if arrays is None or not self._fits(arrays, next(iter(given.values()), arrays)):
                continue
            self.found.add(row)
            given[row] = arrays
            size += sum(array.nbytes for array in arrays.values())
            if size >= SCORING_PRECISION[self.device.type].chunk_bytes:
                yield _stacked(given, self.decode, self.device)
                given, size = {}, 0
        if given:
            yield _stacked(given, self.decode, self.device)


@dataclass
class ComputedTensors:
    """Candidates that only their files can give: decoded and encoded now, and kept for later searches.

    ``computed`` and ``unkept`` fill while :meth:`chunks` is read.
    """

    context: ScoringContext
    mode: str
    items: Mapping[int, Item]  # by row
    cached: CachedTensors  # read before; only what it has not found is computed
    on_progress: OnProgress
    cancel: Cancellation | None = None
    computed: set[int] = field(default_factory=set)
    unkept: set[int] = field(default_factory=set)  # computed, but the cache could not keep them

    @property
    def part(self) -> Part:
        """Computing; finding out that nothing is to be computed belongs to reading."""
        return "compute" if self.cached.missing else "read"

    def chunks(self) -> Iterator[Chunk]:
        """See :class:`retrieval.search.reranking.TensorSource`.

        Raises:
            CancelledError: the search was asked to stop; what was computed is kept.
        """
        rows, done = self.cached.missing, 0
        if not rows:
            return
        self.on_progress(Progress("compute", 0, len(rows)))
        for given, count in self._batches(rows):
            if given:
                yield _stacked(given, self.context.decoder(self.mode), self.context.device)
                self._keep(given)
            done += count
            self.on_progress(Progress("compute", done, len(rows)))
            if self.cancel is not None:
                self.cancel.check()

    def _keep(self, given: Mapping[int, StoredArrays]) -> None:
        cache = self.context.tensor_cache
        for row, arrays in given.items():
            if not cache.put(self.context.cache_key(self.mode, self.items[row]), arrays) and cache.is_wanted:
                self.unkept.add(row)
        self.computed |= given.keys()

    def _batches(self, rows: Sequence[int]) -> Iterator[tuple[dict[int, StoredArrays], int]]:
        """Yield batches: arrays by row of the usable images, and the number of images in the batch."""
        models, outputs = self.context.models, Outputs(modes=(self.mode,))
        files = [Path(self.items[row].uri) for row in rows]
        limits = self.context.batch_size, self.context.workers
        done = 0
        for batch in read_batches(files, *limits, models.rules, lambda image: models.prepare(image, outputs)):
            usable = self._usable(rows[done : done + len(batch.files)], batch.outcomes)
            given: dict[int, StoredArrays] = {}
            if usable:
                batch_stored = self.context.encode_stored(list(usable.values()), outputs)
                finite = [row for number, row in enumerate(usable) if number not in batch_stored.unusable]
                arrays = batch_stored.tensors.get(self.mode, {}).items()
                given = {row: {name: array[n] for name, array in arrays} for n, row in enumerate(finite)}
            yield given, len(batch.files)
            done += len(batch.files)

    def _usable(self, rows: Sequence[int], outcomes: Sequence[Outcome]) -> dict[int, ModelInputs]:
        """Return the readable images whose files have the indexed SHA-256, by row."""
        return {
            row: outcome[1]
            for row, outcome in zip(rows, outcomes, strict=True)
            if not isinstance(outcome, Failure) and outcome[0].sha256 == self.items[row].sha256
        }


def _stacked(given: Mapping[int, StoredArrays], decode: DecodeQKV, device: torch.device) -> StoredChunk:
    """Return a chunk of rows whose arrays are at hand."""
    first = next(iter(given.values()))
    arrays = {name: np.stack([each[name] for each in given.values()]) for name in first}
    return StoredChunk(list(given), upload(arrays, device), decode)
