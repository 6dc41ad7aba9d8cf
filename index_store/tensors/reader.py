"""Read the attention tensors of one generation's live items."""

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index_store.codecs import DEFAULT_CODEC, find_codec
from index_store.errors import IndexCorruptError
from index_store.generation import AttentionRecord, Generation
from index_store.layout import Layout
from index_store.row_locations import NOWHERE, RowLocator
from index_store.tensors.attention import StoredRow, read_rows
from index_store.tensors.projections import read_projection
from index_store.tensors.shards import Shards, find_shards


class TensorReader:
    """The tensors of the live items, by mode and row; safe to use from many threads."""

    def __init__(self, layout: Layout, generation: Generation, ids: NDArray[np.int64], locator: RowLocator) -> None:
        """Take the live items' ``ids``, by row, and the ``locator`` of their rows; reads nothing yet."""
        self._layout, self._generation, self._ids, self._locator = layout, generation, ids, locator

    @cached_property
    def _shards(self) -> Shards:
        return find_shards(self._layout)

    def held(self, mode: str) -> NDArray[np.bool_]:
        """Say of every row whether its tensors of ``mode`` are stored, bool ``[live items]``."""
        return self._locator.tensors(self._generation.stored_as(mode)).held

    def segment_numbers(self, mode: str) -> NDArray[np.int64]:
        """Return the number of the segment that holds each row's tensors, int64 ``[live items]``; -1: none does."""
        return self._locator.tensors(self._generation.stored_as(mode)).segment

    def read(self, mode: str, rows: Iterable[int]) -> dict[str, NDArray[Any]]:
        """Return the tensors of ``rows`` in that order, as stored; see :func:`index_store.tensors.attention.read_rows`.

        Raises:
            ValueError: a row has none; see :meth:`held`.
        """
        name = self._generation.stored_as(mode)
        wanted, locations = list(rows), self._locator.tensors(name)
        segments, stored = locations.segment[wanted].tolist(), locations.row[wanted].tolist()
        if NOWHERE in segments:
            raise ValueError(f"item {self._ids[wanted[segments.index(NOWHERE)]]} has no tensors of mode {name}")
        groups = {number: self._group(name, number) for number in set(segments)}
        places = zip(segments, stored, strict=True)
        return read_rows([StoredRow(*groups[number], row) for number, row in places], self._shards)

    def _group(self, name: str, number: int) -> tuple[Path, AttentionRecord]:
        segment = self._generation.segments[number]
        return self._layout.attention(name, segment.name), segment.attention[name]

    def row_bytes(self, mode: str) -> int:
        """Return the bytes of one row's tensors as stored; 0 if no item has any."""
        name = self._generation.stored_as(mode)
        for segment in self._generation.segments:
            if name in segment.attention:
                record = segment.attention[name]
                codec = find_codec(record.codec)
                shapes = record.row_shapes.items()
                return sum(int(np.prod(shape)) * codec.dtype_of(array).itemsize for array, shape in shapes)
        return 0

    @property
    def codec(self) -> str:
        """The name of the codec that the tensors are stored by."""
        records = (record for segment in self._generation.segments for record in segment.attention.values())
        return next((record.codec for record in records), DEFAULT_CODEC)

    def projection(self, mode: str) -> dict[str, NDArray[Any]]:
        """Return the weights that turn a mode's stored layer inputs into Q, K and V.

        Raises:
            IndexCorruptError: the file is missing or damaged, or a repair removed it.
        """
        if mode not in self._generation.projections:
            root = self._layout.root
            raise IndexCorruptError(f"{root} misses the projection of mode {mode}", advice="build-again", index=root)
        return read_projection(self._layout, self._generation.projections[mode])
