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
        self._segments, self._segment, self._row, self.dim = segments, segment, row, dim

    def of(self, rows: Rows) -> Floats:
        """Return the vectors of ``rows``, which lie in mapped segments, of norm 1, float32 ``[rows, dim]``.

        Raises:
            IndexCorruptError: a segment's vectors have changed since they were written.
        """
        if not len(rows):
            return np.empty((0, self.dim), np.float32)
        numbers = self._segment[rows].tolist()
        segments = {number: self._segments[number].vectors() for number in set(numbers)}
        places = zip(numbers, self._row[rows].tolist(), strict=True)
        stored = np.concatenate([segments[number][row] for number, row in places]).reshape(len(rows), self.dim)
        return normalised(stored)
