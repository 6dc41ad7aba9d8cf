"""Join a user's own table to the images of an index, and find those that a condition on its columns holds for.

DuckDB evaluates the condition, on the table in memory alone: files, other tables and Python stay out of its reach.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import csv, parquet

from index_store.catalog import uri_of
from index_store.reader import IndexReader
from retrieval.errors import DependencyError, UsageError

KEYS = ("sha256", "path")  # columns that join; the first that a table has counts
_CONFIG: dict[str, Any] = {
    "enable_external_access": "false",
    "python_enable_replacements": "false",
    "lock_configuration": "true",
    "threads": "1",
}


def passing(reader: IndexReader, path: str, condition: str) -> NDArray[np.bool_]:
    """Say of every row of the index whether a row of the table that names its image fulfils the condition.

    Args:
        reader: the index.
        path: a file of Parquet (.parquet, .pq) or CSV (.csv, .tsv) with a column ``sha256`` or ``path``. A relative
            path is one below the table's folder or below a source of the index.
        condition: SQL, as after WHERE.

    Raises:
        UsageError: a table that can't be read or joined, an unknown column, or a condition that isn't one.
        DependencyError: DuckDB is not installed.
    """
    table = read_metadata(path)
    key = next((name for key in KEYS for name in table.column_names if name.lower() == key), None)
    if key is None:
        raise UsageError(
            f"{path} has no column sha256 or path to join by; its columns: {', '.join(table.column_names)}"
        )
    names = table[key].cast(pa.string())

    def joined(some: pa.ChunkedArray) -> NDArray[np.int64]:
        by_content = key.lower() == "sha256"
        return _rows_of_content(reader, some) if by_content else _rows_of_paths(reader, some, os.path.dirname(path))

    rows = joined(names.take(pa.array(fulfilling(table, condition, path))))
    if len(names) and not len(rows) and not len(joined(names)):
        example = next(filter(None, names.to_pylist()), "")
        raise UsageError(f"no row of {path} names an image of this index in its column {key}, such as '{example}'")
    mask = np.zeros(len(reader), bool)
    mask[rows] = True
    return mask


def read_metadata(path: str) -> pa.Table:
    """Read a table of Parquet or CSV.

    Raises:
        UsageError: the file can't be read as its ending says.
    """
    suffix = Path(path).suffix.lower()
    try:
        if suffix in (".parquet", ".pq"):
            return parquet.read_table(path)
        if suffix in (".csv", ".tsv"):
            types = dict.fromkeys([*KEYS, *map(str.upper, KEYS)], pa.string())  # digits alone would become a number
            separator = csv.ParseOptions(delimiter="\t" if suffix == ".tsv" else ",")
            return csv.read_csv(path, None, separator, csv.ConvertOptions(column_types=types))
    except (OSError, pa.ArrowException) as error:
        raise UsageError(f"the table {path} can't be read: {str(error).splitlines()[0]}") from error
    raise UsageError(f"the table {path} is neither Parquet (.parquet, .pq) nor CSV (.csv, .tsv)")


def fulfilling(table: pa.Table, condition: str, name: str) -> NDArray[np.int64]:
    """Return the rows of ``table`` that fulfil a condition in SQL; messages call the table ``name``.

    Raises:
        UsageError: an unknown column, or a condition that isn't one.
        DependencyError: DuckDB is not installed.
    """
    try:
        import duckdb
    except ImportError as error:
        raise DependencyError(
            "a condition on metadata needs DuckDB, which is not installed", advice="install-package", package="duckdb"
        ) from error
    number = next(name for name in ("row", *(f"row{n}" for n in range(10_000))) if name not in table.column_names)
    numbered = table.append_column(number, pa.array(np.arange(len(table))))
    with duckdb.connect(":memory:", config=_CONFIG) as connection:
        try:
            found = connection.from_arrow(numbered).filter(condition).project(f'"{number}"').fetchnumpy()[number]
        except duckdb.Error as error:
            known = f"the columns of {name}: {', '.join(table.column_names)}"
            raise UsageError(f"'{condition}' can't be used: {_reason(str(error))}; {known}") from error
    rows: NDArray[np.int64] = np.sort(np.asarray(found, np.int64))
    return rows


def _reason(message: str) -> str:
    """Return the first line of DuckDB's message as a clause, without the kind of error in front of it."""
    kind, _, rest = message.split("\n")[0].partition(" Error: ")
    line = (rest or kind).strip().rstrip(".!")
    return line[:1].lower() + line[1:]


def _rows_of_content(reader: IndexReader, digests: pa.ChunkedArray) -> NDArray[np.int64]:
    """Return the rows of the index whose SHA-256 is among ``digests``."""
    return np.array(reader.catalog.with_content(pc.utf8_lower(digests.drop_null()).to_pylist()), np.int64)


def _rows_of_paths(reader: IndexReader, names: pa.ChunkedArray, folder: str) -> NDArray[np.int64]:
    """Return the row of the index that each path names, without those that name none.

    A relative path may lie below ``folder`` or below a source: the first place that has it counts.
    """
    uris, given = pa.array(reader.uris(), pa.string()), [uri_of(name) for name in names.drop_null().to_pylist()]
    rows = np.full(len(given), -1, np.int64)
    for place in (folder, *reader.sources.places):
        whole = pa.array([os.path.normpath(os.path.join(place, name)) for name in given], pa.string())
        found = pc.fill_null(pc.index_in(whole, value_set=uris), -1).to_numpy(zero_copy_only=False)
        rows = np.where(rows < 0, found, rows)
    return rows[rows >= 0]
