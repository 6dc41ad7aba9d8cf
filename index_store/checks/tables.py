"""Decode Parquet bytes whose footer is not trusted: known columns, snappy or nothing, and memory within bounds."""

from collections.abc import Sequence
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq

CODECS = ("SNAPPY", "UNCOMPRESSED")  # other codecs turn a few bytes into gigabytes
SNAPPY_MOST = 32  # bytes out of one byte in
# A column of short pages can name one long text in every row. Up to this estimate the column is read at once; above it,
# as a dictionary, which shows its size before it is written out.
PLAIN_BYTES = 1 << 31
DICTIONARY_BYTES = 1 << 28  # of a written-out dictionary, or as many as ...
MOST_GROWTH = 64  # ... this many times the file


def decode_table(data: bytes, schemas: Sequence[pa.Schema], rows: int | None = None) -> pa.Table:
    """Return the table of a Parquet file's bytes, with the metadata of its schema.

    Args:
        data: the whole file.
        schemas: it must have the columns of one of them; none of them may hold nulls.
        rows: the number of rows that it must have, if that is known.

    Raises:
        ValueError: the bytes are something else, or would take far more memory than the file's size explains.
    """
    open_file = partial(pq.ParquetFile, pre_buffer=False, page_checksum_verification=True)
    try:
        with open_file(pa.BufferReader(data)) as file:
            schema = _schema_of(file, schemas)
            _check_footer(file, rows, len(data))
            repeated = [name for name in _texts(schema) if _might_grow(file.metadata, schema.get_field_index(name))]
            if not repeated:
                # Threads and read-ahead cost more than they bring for so few rows.
                return _whole(file.read(use_threads=False), schema)
        with open_file(pa.BufferReader(data), read_dictionary=repeated) as file:
            return _whole(_written_out(file.read(use_threads=False), repeated, len(data)), schema)
    except (pa.ArrowException, OSError, RecursionError, MemoryError) as error:
        raise ValueError(str(error).splitlines()[0] if str(error) else type(error).__name__) from error


def _schema_of(file: pq.ParquetFile, schemas: Sequence[pa.Schema]) -> pa.Schema:
    found = file.schema_arrow
    if not any(found.equals(schema) for schema in schemas):
        raise ValueError(f"it has other columns than expected: {', '.join(found.names)[:200]}")
    return found


def _check_footer(file: pq.ParquetFile, rows: int | None, size: int) -> None:
    meta = file.metadata
    if rows is not None and meta.num_rows != rows:
        raise ValueError(f"it holds {meta.num_rows} rows instead of {rows}")
    groups = [meta.row_group(number) for number in range(meta.num_row_groups)]
    if not 0 <= meta.num_rows <= size or sum(group.num_rows for group in groups) != meta.num_rows:
        raise ValueError(f"it can't hold {meta.num_rows} rows")
    for group in groups:
        for column in (group.column(number) for number in range(group.num_columns)):
            if column.compression not in CODECS or column.num_values != group.num_rows:
                raise ValueError(f"column {column.path_in_schema} is packed in another way")
            if not 0 <= column.total_uncompressed_size <= SNAPPY_MOST * size:
                raise ValueError(f"column {column.path_in_schema} can't hold {column.total_uncompressed_size} bytes")


def _texts(schema: pa.Schema) -> list[str]:
    return [field.name for field in schema if pa.types.is_string(field.type)]


def _might_grow(meta: pq.FileMetaData, column: int) -> bool:
    groups = [meta.row_group(number) for number in range(meta.num_row_groups)]
    return any(group.num_rows * group.column(column).total_uncompressed_size > PLAIN_BYTES for group in groups)


def _written_out(table: pa.Table, names: Sequence[str], size: int) -> pa.Table:
    """Return ``table`` with the dictionaries ``names`` written out as plain text, if they are not too long for that."""
    import pyarrow.compute as pc  # it loads for 60 ms, and few files need it

    for name in names:
        chunks = [chunk for chunk in table[name].chunks if len(chunk)]
        lengths = [pc.sum(pc.take(pc.binary_length(each.dictionary), each.indices)).as_py() or 0 for each in chunks]
        if sum(lengths) > max(DICTIONARY_BYTES, MOST_GROWTH * size):
            raise ValueError(f"column {name} repeats so long texts that it would take {sum(lengths)} bytes")
        table = table.set_column(table.schema.get_field_index(name), name, table[name].cast(pa.string()))
    return table


def _whole(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return ``table`` if it has no nulls and every text is UTF-8."""
    if any(column.null_count for column in table.columns):
        raise ValueError("it has rows without a value")
    table.validate(full=True)
    if table.schema.equals(schema):
        return table.replace_schema_metadata(schema.metadata)
    return table.cast(schema)
