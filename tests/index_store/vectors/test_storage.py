"""Vectors on disk, and the flat index over them."""

from pathlib import Path

import numpy as np
import pytest

from index_store.errors import IndexCorruptError
from index_store.vectors.flat import FlatIndex
from index_store.vectors.storage import normalised, read_vectors, write_vectors


def test_vectors_survive_to_float16_and_are_normalised_again(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((5, 7)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    write_vectors(tmp_path / "v" / "e.npy", [vectors[:2], vectors[2:]])
    assert np.load(tmp_path / "v" / "e.npy").dtype == np.float16
    found = normalised(read_vectors(tmp_path / "v" / "e.npy", 5))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, vectors, atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


def test_what_is_no_npy_file_is_found(tmp_path: Path) -> None:
    np.savez(tmp_path / "archive.npz", np.zeros((5, 7), np.float16))
    np.save(tmp_path / "whole.npy", np.zeros((5, 7), np.float16))
    whole = (tmp_path / "whole.npy").read_bytes()
    contents = [b"", b"PK\3\4", b"text", (tmp_path / "archive.npz").read_bytes()]
    contents += [whole.replace(old, new) for old, new in ((b"{", b"["), (b"(5", b"5("), (b"<f2", b"<x2"))]
    contents += [whole[:length] for length in range(len(whole))]
    for content in contents:
        (tmp_path / "e.npy").write_bytes(content)
        with pytest.raises(IndexCorruptError, match=r"e\.npy"):
            read_vectors(tmp_path / "e.npy", 5)


@pytest.mark.parametrize("count", [1, 5, 30])
def test_a_row_that_is_no_number_is_never_found(count: int) -> None:
    vectors = normalised(np.random.default_rng(0).standard_normal((30, 16)).astype(np.float16))
    vectors[[3, 17]] = np.nan
    rows, cosines = FlatIndex(vectors).search(vectors[0], count)
    assert len(rows) == min(count, 28)
    assert rows[0] == 0
    assert not {-1, 3, 17} & set(rows.tolist())
    assert np.isfinite(cosines).all()
    assert len(FlatIndex(vectors).search(vectors[3], count)[0]) == 0, "nothing is near to what is no number"


def test_ties_of_the_coarse_stage_go_to_the_lowest_row() -> None:
    index = FlatIndex(np.eye(3, dtype=np.float32)[[0, 1, 0, 1, 0]])
    rows, cosines = index.search(np.array([1, 0, 0], np.float32), 5)
    assert rows.tolist() == [0, 2, 4, 1, 3]
    assert cosines.tolist() == [1, 1, 1, 0, 0]


def test_halves_beyond_numbers_stay_so_and_the_largest_are_normalised() -> None:
    stored = np.array([[65504, -65504], [np.inf, 1], [np.nan, 1], [3, -4], [6e-8, 0], [0, -0.0]], np.float16)
    found = normalised(stored)
    with np.errstate(invalid="ignore"):
        wide = stored.astype(np.float64)
        expected = wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    np.testing.assert_allclose(found, expected, rtol=3e-7, equal_nan=True)
    np.testing.assert_array_equal(found[[3, 4, 5]], normalised(stored[[3, 4, 5]]), "whatever lies beside it")
