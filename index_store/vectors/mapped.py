"""Stored float16 vectors, memory-mapped where they lie in their segments: for exact cosines of a few rows.

The bytes of a segment are compared with their checksum once, when its vectors are first asked for. So searches read
the segments that hold their candidates, and damage to these is an error, never another score.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import google_crc32c
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from index_store.checks.arrays import read_header
from index_store.files import CHECKSUM_BYTES, FileRecord, corrupt, open_regular, reading
from index_store.vectors.exact import Floats, Rows
from index_store.vectors.storage import MOST_DIM, STORED_DTYPE, normalised

_OUTSIDE = -(1 << 62)  # no array of numpy reaches so far


class MappedFile:
    """The mapped vectors of one segment; safe in many threads."""

    def __init__(self, path: Path, record: FileRecord, content: Any, vectors: NDArray[np.float16]) -> None:
        """Take a file's mapped ``content`` and the ``vectors [rows, dim]`` in it, which nobody has checked yet."""
        self._path, self._record, self._vectors = path, record, vectors
        self._unchecked = content  # None once it was compared with its checksum

    @property
    def dim(self) -> int:
        """Entries of a vector."""
        return int(self._vectors.shape[1])

    @property
    def rows(self) -> int:
        """How many vectors there are."""
        return len(self._vectors)

    @property
    def address(self) -> int:
        """Where the first vector lies in this process's memory, while this object lives."""
        return int(self._vectors.ctypes.data)

    def vectors(self) -> NDArray[np.float16]:
        """Return the vectors as stored, ``[rows, dim]``; IndexCorruptError if the file has changed since its commit."""
        content = self._unchecked
        if content is not None:  # two threads may both check it
            if _measured(memoryview(content)) != self._record:
                raise corrupt(self._path, "has changed since it was written")
            self._unchecked = None
        return self._vectors


def _measured(content: memoryview) -> FileRecord:
    checksum = 0
    for start in range(0, len(content), CHECKSUM_BYTES):
        checksum = google_crc32c.extend(checksum, bytes(content[start : start + CHECKSUM_BYTES]))
    return FileRecord(len(content), checksum)


def name_of(file: BinaryIO) -> str:
    """Return a path by which a library opens the file that is open already, whatever its own path names by now."""
    opened = f"/dev/fd/{file.fileno()}"
    return opened if os.path.exists(opened) else file.name


def map_vectors(path: Path, rows: int, record: FileRecord) -> MappedFile:
    """Map a file of :func:`index_store.vectors.storage.write_vectors`, committed as ``record``; it stays closed.

    Raises:
        IndexCorruptError: the file is missing, or not an npy file of that many rows.
    """
    with reading(path), open_regular(path) as file:
        try:
            shape, fortran, dtype = read_header(file)
        except ValueError as error:
            raise corrupt(path, f"makes no sense ({error})") from error
        start, size = file.tell(), os.fstat(file.fileno()).st_size
        plain = dtype == STORED_DTYPE and len(shape) == 2 and shape[0] == rows and not fortran
        if not plain or not 0 < shape[1] <= MOST_DIM or size != start + 2 * rows * shape[1]:
            raise corrupt(path, f"holds {dtype} {shape} in {size} bytes instead of {rows} rows of float16")
        # Arrow keeps a mapping without its descriptor, as mmap of Python does not: there are thousands of segments.
        with pa.memory_map(name_of(file)) as mapped:
            content = mapped.read_buffer()
    vectors = np.frombuffer(content, STORED_DTYPE, rows * shape[1], start).reshape(shape)
    return MappedFile(path, record, content, vectors)


class MappedVectors:
    """The vectors of many rows, read from the segments that hold them; safe in many threads."""

    def __init__(self, segments: Mapping[int, MappedFile], segment: Rows, row: Rows, dim: int) -> None:
        """Take what is mapped.

        Args:
            segments: the vectors of a segment, by its number.
            segment: the number of the segment that holds each row's vector, int64 ``[live items]``.
            row: its row there, int64 ``[live items]``.
            dim: entries of a vector.
        """
        self._segments, self._segment, self.dim = segments, segment, dim
        starts, counts = (np.zeros(max(segments, default=-1) + 2, np.int64) for _ in range(2))
        for number, file in segments.items():
            starts[number], counts[number] = file.address, file.rows
        held = counts > 0  # not so the last place, which NOWHERE names as well
        if (row >= counts[segment])[held[segment]].any():
            raise ValueError("a segment holds fewer vectors than the catalogue says")
        self._view, step = _across(starts[held], counts[held], dim)
        starts -= starts[held].min(initial=np.iinfo(np.int64).max)
        self._place = np.where(held[segment], (starts[segment] + 2 * dim * row) // step, _OUTSIDE)
        self._unchecked = held

    def of(self, rows: Rows) -> Floats:
        """Return the vectors of ``rows``, which lie in mapped segments, of norm 1, float32 ``[rows, dim]``.

        Raises:
            IndexCorruptError: a segment's vectors have changed since they were written.
            IndexError: the vector of a row is not mapped.
        """
        if self._unchecked.any():
            segment = self._segment[rows]
            for number in np.unique(segment[self._unchecked[segment]]).tolist():
                self._segments[number].vectors()
                self._unchecked[number] = False
        return normalised(self._view[self._place[rows]])


def _across(starts: Rows, rows: Rows, dim: int) -> tuple[NDArray[np.float16], int]:
    """Return a view of all mappings: a vector of ``dim`` numbers at every step from the lowest, and the step in bytes.

    With it numpy gathers vectors from many segments at once, in a third of the time of one by one. What lies between
    the mappings belongs to others, so only the places of their vectors may be asked for.

    Args:
        starts: addresses of the segments' first vectors.
        rows: how many vectors each segment holds.
        dim: entries of a vector.
    """
    if not len(starts):
        return np.empty((0, dim), STORED_DTYPE), 2 * dim
    lowest = int(starts.min())
    step = int(np.gcd.reduce(np.append(starts - lowest, 2 * dim)))
    places = (int((starts + 2 * dim * (rows - 1)).max()) - lowest) // step + 1
    about = {"data": (lowest, True), "shape": (places, dim), "strides": (step, 2), "typestr": "<f2", "version": 3}
    return np.asarray(_Addresses(about)), step


class _Addresses:
    """Memory that numpy views by its array interface; whoever holds the view keeps the memory mapped."""

    def __init__(self, about: dict[str, Any]) -> None:
        self.__array_interface__ = about
