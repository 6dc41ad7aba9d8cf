"""The rows of Parquet and Arrow files as images, read a few at a time."""

import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from retrieval.errors import ImageError
from retrieval.files import is_object
from retrieval.images.shards.columns import ImageColumn, file_named, holds_bytes, image_column
from retrieval.images.shards.naming import path_of_member
from retrieval.images.shards.places import FileState, open_shard_file

KEPT_BYTES = 2**26  # of decoded rows that one table keeps in memory
MOST_ROWS = 64  # that are decoded together
MAGIC = b"ARROW1"  # begins an Arrow file that may be read in any order; a stream has none


class _RowValue(NamedTuple):
    data: bytes | None
    file: str | None


class TableShard:
    """A table of images. Its rows are the members ``0``, ``1``, ...; a row without bytes names a file."""

    def __init__(self, path: str, state: FileState) -> None:
        """Read the table's schema; a table of another kind, or a damaged one, has a ``problem`` and no rows.

        Raises:
            OSError: the file can't be read.
        """
        self.path, self.problem, self.rows = path, "", 0
        self.is_whole, self.has_images = True, True  # as long as nothing says otherwise
        self.column: ImageColumn | None = None
        self.state = state
        self._lock = threading.Lock()
        try:
            schema = self._opened()
        except (pa.ArrowException, OSError, ValueError) as error:
            self.is_whole, self.problem = False, f"is not a whole table: {_words(error)}"
            return
        self.column = image_column(schema)
        if self.column is None:
            self.has_images = False
            self.rows, self.problem = 0, f"has no column of images; its columns: {', '.join(schema.names)}"

    @property
    def holds_images(self) -> bool:
        """Whether the table is one of images, or so damaged that nobody can tell."""
        return holds_bytes(self.column) or not self.is_whole

    @property
    def names_files(self) -> bool:
        """Whether the table holds the names of files, and no bytes."""
        return self.column is not None and self.column.kind == "files"

    def names(self) -> Iterator[str]:
        """Yield the numbers of all rows."""
        return map(str, range(self.rows))

    def size_of(self, name: str) -> int | None:
        """Return None: the size of a row's image is known once its bytes are read."""
        self._row(name)
        return None

    def file_of(self, name: str) -> Path | None:
        """Return the file that a row names; None for one that holds the bytes itself."""
        value = self._value(name)
        if value.data is not None or value.file is None:
            return None
        return file_named(value.file, self.path, path_of_member(self.path, name))

    def read(self, name: str, before: Callable[[int], None] | None, most: int) -> bytes:
        """Return the bytes of a row's image.

        Raises:
            ImageError: vanished, empty, too_large (above ``most`` bytes), or unreadable.
        """
        data = self._value(name).data or b""
        if len(data) > most:
            raise ImageError("too_large", path_of_member(self.path, name), f"is a value of {len(data)} bytes")
        if before is not None:
            before(len(data))
        return data

    def _row(self, name: str) -> int:
        if not name.isdecimal() or int(name) >= self.rows:
            detail = f"is not in the table {self.path} (any more), which has {self.rows} rows"
            raise ImageError("vanished", path_of_member(self.path, name), detail)
        return int(name)

    def _value(self, name: str) -> _RowValue:
        row = self._row(name)
        with self._lock:
            try:
                value = self._read(row)
            except (pa.ArrowException, OSError, ValueError) as error:
                detail = f"can't be decoded from the table {self.path}: {_words(error)}"
                raise ImageError("unreadable", path_of_member(self.path, name), detail) from error
        if isinstance(value, dict):
            return _RowValue(value.get("bytes"), value.get("path"))
        return _RowValue(value, None) if isinstance(value, bytes) else _RowValue(None, value)

    def _source(self) -> "str | BinaryIO":
        """Return what pyarrow reads: the path of a file, or an object in a bucket as a file."""
        return open_shard_file(self.path, self.state) if is_object(self.path) else self.path

    def _opened(self) -> pa.Schema:
        raise NotImplementedError

    def _read(self, row: int) -> Any:
        raise NotImplementedError


class ParquetShard(TableShard):
    """A Parquet file, decoded a few rows at a time, because one group of rows may be larger than the memory."""

    def _opened(self) -> pa.Schema:
        self._parquet = pq.ParquetFile(self._source(), page_checksum_verification=True)
        meta = self._parquet.metadata
        self.rows = meta.num_rows
        self._ends = list(accumulate(meta.row_group(group).num_rows for group in range(meta.num_row_groups)))
        self._kept: OrderedDict[int, list[Any]] = OrderedDict()  # rows by the number of their first
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._group, self._next = -1, 0  # the group of the batches, and the row that the next one begins with
        return self._parquet.schema_arrow

    def _read(self, row: int) -> Any:
        for first, values in reversed(self._kept.items()):
            if first <= row < first + len(values):
                return values[row - first]
        group = bisect_right(self._ends, row)
        begin = self._ends[group - 1] if group else 0
        if self._group != group or not begin <= self._next <= row:
            self._begin(group, begin)
        while True:
            first, values = self._next, self._decoded()
            self._next += len(values)
            if row < self._next:
                return values[row - first]

    def _begin(self, group: int, first: int) -> None:
        assert self.column is not None
        self._group = -1
        self._batches = self._parquet.iter_batches(
            self._step(group), row_groups=[group], columns=list(self.column.fields), use_threads=False
        )
        self._group, self._next = group, first

    def _step(self, group: int) -> int:
        """Return how many rows of a group are decoded together: all of them may be as large as the largest."""
        assert self.column is not None
        meta = self._parquet.metadata.row_group(group)
        columns = (meta.column(number) for number in range(meta.num_columns))
        size = sum(int(each.total_uncompressed_size) for each in columns if each.path_in_schema in self.column.fields)
        return max(1, min(MOST_ROWS, KEPT_BYTES // max(1, size)))

    def _decoded(self) -> list[Any]:
        assert self.column is not None
        try:
            values: list[Any] = next(self._batches).column(0).to_pylist()
        except StopIteration as error:
            raise ValueError("it has fewer rows than it states") from error
        except Exception:
            self._group = -1  # nothing can follow: the next read begins its group again
            raise
        self._kept[self._next] = values
        held = [sum(map(_bytes_of, kept)) for kept in self._kept.values()]
        while len(held) > 1 and sum(held) > KEPT_BYTES:
            self._kept.popitem(last=False)
            held.pop(0)
        while len(self._kept) > 2 * MOST_ROWS:
            self._kept.popitem(last=False)
        return values


class ArrowShard(TableShard):
    """An Arrow file or stream, as the library datasets saves it; rows are read through the system's page cache."""

    def _opened(self) -> pa.Schema:
        mapped = pa.PythonFile(self._source(), "r") if is_object(self.path) else pa.memory_map(self.path)
        is_file = mapped.read(len(MAGIC)) == MAGIC
        mapped.seek(0)
        reader = pa.ipc.open_file(mapped) if is_file else pa.ipc.open_stream(mapped)
        batches = map(reader.get_batch, range(reader.num_record_batches)) if is_file else iter(reader)
        self._parts: list[pa.RecordBatch] = []
        try:
            for batch in batches:
                batch.validate(full=True)  # offsets of a damaged file would lead anywhere
                self._parts.append(batch)
        except (pa.ArrowException, OSError) as error:
            rows = sum(part.num_rows for part in self._parts)
            self.is_whole, self.problem = False, f"is damaged after row {rows - 1}: {_words(error)}"
        self._ends = list(accumulate(part.num_rows for part in self._parts))
        self.rows = self._ends[-1] if self._ends else 0
        return reader.schema

    def _read(self, row: int) -> Any:
        assert self.column is not None
        part = bisect_right(self._ends, row)
        values = self._parts[part].column(self.column.name)
        return values[row - (self._ends[part - 1] if part else 0)].as_py()


def _bytes_of(value: Any) -> int:
    if isinstance(value, dict):
        return _bytes_of(value.get("bytes"))
    return len(value) if value is not None else 0


def _words(error: BaseException) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:200]
