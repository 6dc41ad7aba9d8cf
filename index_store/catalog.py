"""The catalogue: what each item is, and why some images are none. Parquet with page checksums; ids alone as npy."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from index_store.files import corrupt, read_array, reading, write_array, writing

STORED_ID = np.dtype("<i8")


@dataclass(frozen=True)
class Item:
    """One indexed image."""

    id: int
    uri: str  # absolute path
    size: int  # bytes
    mtime_ns: int
    sha256: str  # of the file's bytes
    width: int  # pixels, as a viewer shows it
    height: int


@dataclass(frozen=True)
class Reject:
    """One image that could not be used; ``reason`` is a stable word, ``detail`` a clause for people."""

    uri: str
    size: int  # bytes; -1: unknown
    mtime_ns: int  # -1: unknown
    reason: str
    detail: str


ITEM_SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("uri", pa.string()),
        ("size", pa.int64()),
        ("mtime_ns", pa.int64()),
        ("sha256", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
    ]
)
REJECT_SCHEMA = pa.schema(
    [
        ("uri", pa.string()),
        ("size", pa.int64()),
        ("mtime_ns", pa.int64()),
        ("reason", pa.string()),
        ("detail", pa.string()),
    ]
)


def write_rows(path: Path, rows: Sequence[Item] | Sequence[Reject], schema: pa.Schema) -> None:
    """Write ``rows`` in the given order as one Parquet file."""
    columns = [[getattr(row, name) for row in rows] for name in schema.names]
    table = pa.table([pa.array(c, t) for c, t in zip(columns, schema.types, strict=True)], schema=schema)
    with writing(path):
        pq.write_table(table, path, write_page_checksum=True)


def read_table(path: Path, schema: pa.Schema) -> pa.Table:
    """Read one Parquet file written by :func:`write_rows`; IndexCorruptError where it can't be."""
    with reading(path):
        try:
            # Not read_table, which looks for a data set of many files, and takes four times as long over one. Threads
            # and read-ahead cost more than they bring for so few rows.
            with pq.ParquetFile(path, pre_buffer=False, page_checksum_verification=True, memory_map=False) as file:
                table = file.read(use_threads=False)
        except FileNotFoundError:
            raise
        except (pa.ArrowException, OSError, ValueError) as error:
            raise corrupt(path, f"is no whole Parquet file ({str(error).splitlines()[0]})") from error
    if not table.schema.equals(schema):
        raise corrupt(path, f"has other columns than expected: {table.schema.names}")
    return table


def write_ids(path: Path, ids: Sequence[int]) -> None:
    """Write items' ids as one npy file, int64 ``[ids]``."""
    write_array(path, np.array(ids, STORED_ID))


def read_ids(path: Path, rows: int) -> NDArray[np.int64]:
    """Read what :func:`write_ids` wrote; IndexCorruptError unless it holds ``rows`` ids."""
    ids: NDArray[np.int64] = read_array(path)
    if ids.dtype != STORED_ID or ids.shape != (rows,):
        raise corrupt(path, f"holds {ids.dtype} {ids.shape} instead of {rows} ids")
    return ids


def items_of(table: pa.Table) -> list[Item]:
    """Turn rows of the items table into objects."""
    return [Item(**row) for row in table.to_pylist()]


def write_items(path: Path, table: pa.Table) -> None:
    """Write rows of the items table as one Parquet file."""
    with writing(path):
        pq.write_table(table, path, write_page_checksum=True)


def rejects_of(tables: Iterable[pa.Table]) -> list[Reject]:
    """Turn rejects tables, oldest first, into objects; a file's newest row wins."""
    newest: dict[str, Any] = {row["uri"]: row for table in tables for row in table.to_pylist()}
    return [Reject(**row) for row in newest.values()]


assert [f.name for f in fields(Item)] == ITEM_SCHEMA.names
assert [f.name for f in fields(Reject)] == REJECT_SCHEMA.names


def uri_of(path: str | Path) -> str:
    """Return the path as the catalogue holds it; bytes that are no UTF-8 are spelled out (such files are rejected)."""
    name = os.fspath(path)
    return name if name.isascii() else os.fsencode(path).decode("utf-8", "backslashreplace")
