"""Vectors that are mapped where they lie equal those that are read."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from index_store.errors import IndexCorruptError
from index_store.files import FileRecord
from index_store.vectors.mapped import MappedFile, MappedVectors, map_vectors
from index_store.vectors.storage import normalised, read_vectors, write_vectors


def mapped_from(path: Path, rows: int) -> MappedFile:
    return map_vectors(path, rows, FileRecord.of(path))


def test_mapped_vectors_are_those_that_are_read(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).standard_normal((5, 7)).astype(np.float16)
    write_vectors(tmp_path / "e.npy", [vectors])
    np.testing.assert_array_equal(mapped_from(tmp_path / "e.npy", 5).vectors(), read_vectors(tmp_path / "e.npy", 5))


@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="open descriptors can't be counted")
def test_mapped_files_hold_no_descriptors(tmp_path: Path) -> None:
    write_vectors(tmp_path / "e.npy", [np.ones((5, 7), np.float16)])
    before = len(os.listdir("/dev/fd"))
    mapped = [mapped_from(tmp_path / "e.npy", 5) for _ in range(20)]
    assert len(os.listdir("/dev/fd")) == before
    assert all((file.vectors() == 1).all() for file in mapped)


def test_every_float16_is_widened_to_the_same_float32(tmp_path: Path) -> None:
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    finite = np.where(np.isfinite(every), every, 0).reshape(-1, 64).astype(np.float16)
    write_vectors(tmp_path / "a.npy", [finite[:500]])
    write_vectors(tmp_path / "b.npy", [finite[500:]])
    segments = {3: mapped_from(tmp_path / "a.npy", 500), 5: mapped_from(tmp_path / "b.npy", 524)}
    segment, row = np.repeat([3, 5], [500, 524]), np.concatenate([np.arange(500), np.arange(524)])
    vectors = MappedVectors(segments, segment, row, 64)
    order = np.random.default_rng(0).permutation(1024)
    np.testing.assert_array_equal(vectors.of(order), normalised(finite[order]))
    assert vectors.of(order[:0]).shape == (0, 64)


@pytest.mark.parametrize("read", [read_vectors, mapped_from])
@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 7), np.float16),
        np.zeros((5, 7), np.float32),
        np.zeros((5, 0), np.float16),
        np.zeros(5, np.float16),
        np.array([{}] * 5, object),
        np.zeros((5, 7), [("x", "<f2")]),
    ],
    ids=["rows", "dtype", "empty", "axes", "objects", "fields"],
)
def test_other_arrays_are_no_vectors(tmp_path: Path, array: np.ndarray, read: Callable[[Path, int], object]) -> None:
    np.save(tmp_path / "e.npy", array)
    with pytest.raises(IndexCorruptError, match=r"e\.npy"):
        read(tmp_path / "e.npy", 5)


def test_vectors_in_another_order_are_not_mapped(tmp_path: Path) -> None:
    np.save(tmp_path / "e.npy", np.asfortranarray(np.zeros((5, 7), np.float16)))
    with pytest.raises(IndexCorruptError, match=r"e\.npy"):
        mapped_from(tmp_path / "e.npy", 5)


def test_a_cut_file_is_not_mapped(tmp_path: Path) -> None:
    np.save(tmp_path / "whole.npy", np.zeros((5, 7), np.float16))
    whole = (tmp_path / "whole.npy").read_bytes()
    for content in (*(whole[:length] for length in range(len(whole))), whole + b"x"):
        (tmp_path / "e.npy").write_bytes(content)
        with pytest.raises(IndexCorruptError, match=r"e\.npy"):
            mapped_from(tmp_path / "e.npy", 5)
    with pytest.raises(IndexCorruptError, match="is missing"):
        map_vectors(tmp_path / "other.npy", 5, FileRecord(0, 0))


def test_a_flipped_bit_is_an_error_before_the_first_score(tmp_path: Path) -> None:
    path = tmp_path / "e.npy"
    write_vectors(path, [np.random.default_rng(0).standard_normal((5, 7)).astype(np.float16)])
    record, whole = FileRecord.of(path), path.read_bytes()
    for bit in range(8 * (len(whole) - 2 * 5 * 7), 8 * len(whole), 5):
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        vectors = MappedVectors({0: map_vectors(path, 5, record)}, np.zeros(5, np.int64), np.arange(5), 7)
        for _ in range(2):
            with pytest.raises(IndexCorruptError, match="has changed since it was written"):
                vectors.of(np.array([2]))
