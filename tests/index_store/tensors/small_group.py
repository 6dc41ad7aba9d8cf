"""Groups of tensors with tiny rows and three rows a shard."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index_store.generation import AttentionRecord
from index_store.tensors.attention import AttentionWriter, StoredRow, read_rows

Arrays = dict[str, NDArray[np.float16]]
SHAPES = {"q": (2, 1, 2, 2), "k": (2, 1, 2, 2), "v": (2, 1, 2, 3)}
ARRAYS = tuple(SHAPES)
SHARD_ROWS = 3
RECORD = AttentionRecord(SHAPES, SHARD_ROWS)


def random_rows(count: int, seed: int = 0) -> Arrays:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal((count, *shape)).astype(np.float16) for name, shape in SHAPES.items()}


def write(path: Path, tensors: Arrays, batches: Sequence[int]) -> AttentionRecord:
    """Write ``tensors`` in batches of the given sizes."""
    writer = AttentionWriter(path, SHAPES)
    ends = np.cumsum(batches)
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        writer.append({name: tensors[name][start:end] for name in ARRAYS})
    return writer.close()


def read(path: Path, record: AttentionRecord, rows: Sequence[int]) -> Arrays:
    return read_rows(StoredRow(path, record, row) for row in rows)


def assert_same(found: Arrays, expected: Arrays) -> None:
    assert set(found) == set(ARRAYS)
    for name in ARRAYS:
        assert found[name].dtype == np.float16
        np.testing.assert_array_equal(found[name].view(np.uint16), expected[name].view(np.uint16))


def shard(path: Path, name: str = "q", number: int = 0) -> Path:
    return path / name / "c" / str(number) / "0" / "0" / "0" / "0"
