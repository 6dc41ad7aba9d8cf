"""Rows of the catalogue: items and rejects, and the Parquet files that hold them."""

import json
import os
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from index_store.catalog_files.sources import NO_SOURCE, Source, Sources
from index_store.checks.generation_json import check_sources
from index_store.checks.json_values import parse_json
from index_store.checks.tables import decode_table
from index_store.files import FileRecord, corrupt, open_regular, read_checked, reading, write_file
from index_store.remote.object_store import OBJECT, is_object

UNKNOWN = -1  # a size or time that nobody knows
GONE = "gone"  # the reason of a row that takes an older reject of its path back

_SOURCES = b"sources"  # the key of the sources in a file's metadata, so that a segment can be read alone


@dataclass(frozen=True)
class Item:
    """One indexed image."""

    id: int
    uri: str  # absolute path
    size: int  # bytes
    mtime_ns: int
    sha256: str  # of the file's bytes
    width: int  # pixels, after the EXIF rotation
    height: int
    ctime_ns: int = UNKNOWN  # when the file's data, name or rights last changed; UNKNOWN where no system tells


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
        ("source", pa.int32()),
        ("path", pa.string()),
        ("size", pa.int64()),
        ("mtime_ns", pa.int64()),
        ("ctime_ns", pa.int64()),
        ("sha256", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
    ]
)
REJECT_SCHEMA = pa.schema(
    [
        ("source", pa.int32()),
        ("path", pa.string()),
        ("size", pa.int64()),
        ("mtime_ns", pa.int64()),
        ("reason", pa.string()),
        ("detail", pa.string()),
    ]
)


def _before(schema: pa.Schema) -> pa.Schema:
    """Return the columns of format versions 1 and 2, which hold absolute paths."""
    fields = [pa.field("uri", pa.string()) if field.name == "path" else field for field in schema]
    return pa.schema([field for field in fields if field.name not in ("source", "ctime_ns")])


_OLDER = {ITEM_SCHEMA: _before(ITEM_SCHEMA), REJECT_SCHEMA: _before(REJECT_SCHEMA)}


def write_rows(
    path: Path, rows: Sequence[Item] | Sequence[Reject], schema: pa.Schema, sources: Sources | None = None
) -> None:
    """Write ``rows`` in the given order as one Parquet file, with paths relative to the ``sources`` they lie below."""
    sources = sources or Sources()
    split = [sources.split(row.uri) for row in rows]
    columns: dict[str, list[Any]] = {"source": [number for number, _ in split], "path": [path for _, path in split]}
    arrays = [
        pa.array(columns.get(name) or [getattr(row, name) for row in rows], kind)
        for name, kind in zip(schema.names, schema.types, strict=True)
    ]
    ids = set(columns["source"])
    used = [source.to_json() for source in sources.all if source.id in ids]
    write_table(path, pa.table(arrays, schema=schema.with_metadata({_SOURCES: json.dumps(used)})))


def write_table(path: Path, table: pa.Table) -> None:
    """Write one Parquet file with a checksum of every page."""
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, write_page_checksum=True)
    write_file(path, memoryview(buffer.getvalue()))


def read_table(path: Path, schema: pa.Schema, record: FileRecord | None = None, rows: int | None = None) -> pa.Table:
    """Read one Parquet file of :func:`write_rows`.

    Rows of format 1 and 2 come without a source and with absolute paths.

    Raises:
        IndexCorruptError: it is damaged, has other columns, or is not the file of ``record`` or not of ``rows`` rows.
    """
    if record is not None:
        data = read_checked(path, record)
    else:
        with reading(path), open_regular(path) as file:
            data = file.read()
    try:
        table = decode_table(data, (schema, _OLDER[schema]), rows)
        sources_in(table)
    except (ValueError, KeyError, TypeError) as error:
        raise corrupt(path, f"is not a whole Parquet file ({error})") from error
    return _as_today(table, schema) if table.schema.equals(_OLDER[schema]) else table


def _as_today(table: pa.Table, schema: pa.Schema) -> pa.Table:
    new = {"source": pa.array(np.full(len(table), NO_SOURCE, np.int32)), "path": table["uri"]}
    new["ctime_ns"] = pa.array(np.full(len(table), UNKNOWN, np.int64))
    return pa.table([new[name] if name in new else table[name] for name in schema.names], schema=schema)


def sources_in(table: pa.Table) -> list[Source]:
    """Return the sources in the metadata of a read file; ValueError, KeyError or TypeError if these are wrong."""
    values = check_sources(parse_json((table.schema.metadata or {}).get(_SOURCES, b"[]")))
    return [Source.from_json(value, number) for number, value in enumerate(values)]


def rejects_of(rows: Iterable[dict[str, Any]]) -> list[Reject]:
    """Turn rows of rejects, oldest first and with their ``uri``, into objects.

    The newest row of each path counts; none is left of a path whose newest row says that it is gone.
    """
    newest = {row["uri"]: row for row in rows}
    return [Reject(**row) for row in newest.values() if row["reason"] != GONE]


def absolute_uri(path: str | Path) -> str:
    """Return the absolute path as the catalogue holds it; objects in a bucket have no other."""
    return uri_of(path if is_object(path) else os.path.abspath(path))


def uri_of(path: str | Path) -> str:
    """Return the path as the catalogue holds it; bytes that are not UTF-8 are escaped (such files are rejected).

    An object in a bucket has both slashes: ``s3://BUCKET/KEY``.
    """
    name = os.fspath(path)
    if name.startswith(f"{OBJECT}/"):
        name = f"{OBJECT}//{name.removeprefix(OBJECT).lstrip('/')}".rstrip("/")
    return name if name.isascii() else os.fsencode(path).decode("utf-8", "backslashreplace")


def composed(name: str) -> str:
    """Return a name in the form of Unicode that all spellings share (NFC)."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)
