"""Groups of tensors are written and read, here and by zarr-python alike."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from index_store.codecs import CODECS
from index_store.errors import DiffSimError, IndexIncompatibleError
from index_store.files import write_file
from index_store.generation import AttentionRecord
from index_store.tensors import attention
from index_store.tensors.attention import AttentionWriter, StoredRow, read_rows
from tests.index_store.tensors.small_group import (
    ARRAYS,
    RECORD,
    SHAPES,
    SHARD_ROWS,
    Arrays,
    assert_same,
    random_rows,
    read,
    write,
)
from tests.slices import examples

pytestmark = pytest.mark.usefixtures("small_shards")


@pytest.mark.parametrize(
    "batches",
    [[1], [SHARD_ROWS], [2], [1, 1, 1, 1], [4], [2 * SHARD_ROWS], [2, 5, 1], [1, 10]],
    ids=lambda batches: "+".join(map(str, batches)),
)
def test_what_was_written_is_read_here_and_by_zarr(tmp_path: Path, batches: list[int]) -> None:
    tensors = random_rows(sum(batches))
    record = write(tmp_path / "g.zarr", tensors, batches)
    assert record == RECORD
    assert_same(read(tmp_path / "g.zarr", record, range(sum(batches))), tensors)
    group = zarr.open_group(tmp_path / "g.zarr", mode="r")
    assert_same({name: np.asarray(group[name]) for name in ARRAYS}, tensors)
    assert group.attrs["codec"] == record.codec
    assert -(-sum(batches) // SHARD_ROWS) == len(list((tmp_path / "g.zarr" / "q" / "c").iterdir()))


@pytest.mark.parametrize("count", [1, SHARD_ROWS, SHARD_ROWS + 1])
def test_shards_are_those_that_zarr_writes(tmp_path: Path, count: int) -> None:
    tensors = random_rows(count)
    write(tmp_path / "ours.zarr", tensors, [count])
    shutil.copytree(tmp_path / "ours.zarr", tmp_path / "theirs.zarr")
    for name in ARRAYS:
        shutil.rmtree(tmp_path / "theirs.zarr" / name / "c")
        theirs = zarr.open_array(tmp_path / "theirs.zarr" / name, mode="r+")
        theirs[...] = tensors[name]
    for path in sorted((tmp_path / "theirs.zarr").rglob("*")):
        ours = tmp_path / "ours.zarr" / path.relative_to(tmp_path / "theirs.zarr")
        assert path.is_dir() or ours.read_bytes() == path.read_bytes()


def test_rows_of_zeros_are_rows(tmp_path: Path) -> None:
    """zarr-python leaves them out of a shard, and what is not there can't be told from what was lost."""
    tensors = {name: np.zeros_like(rows) for name, rows in random_rows(SHARD_ROWS + 1).items()}
    record = write(tmp_path / "g.zarr", tensors, [SHARD_ROWS + 1])
    assert_same(read(tmp_path / "g.zarr", record, range(SHARD_ROWS + 1)), tensors)


@settings(max_examples=examples(60), deadline=None)
@given(rows=st.lists(st.integers(0, 7), min_size=1, max_size=20))
def test_rows_are_read_in_any_order_with_duplicates(tmp_path_factory: pytest.TempPathFactory, rows: list[int]) -> None:
    tensors = random_rows(8)
    path = tmp_path_factory.getbasetemp() / "any_order.zarr"
    if not path.exists():
        write(path, tensors, [8])
    assert_same(read(path, RECORD, rows), {name: tensors[name][rows] for name in ARRAYS})


def test_rows_of_several_groups_are_read_in_one_call(tmp_path: Path) -> None:
    first, second = random_rows(4, seed=1), random_rows(2, seed=2)
    write(tmp_path / "a.zarr", first, [4])
    write(tmp_path / "b.zarr", second, [2])
    places = [StoredRow(tmp_path / name, RECORD, row) for name, row in (("a.zarr", 3), ("b.zarr", 1), ("a.zarr", 0))]
    expected = {name: np.stack([first[name][3], second[name][1], first[name][0]]) for name in ARRAYS}
    assert_same(read_rows(places), expected)


def test_every_float16_but_infinity_and_nan_survives(tmp_path: Path) -> None:
    values = np.arange(2**16, dtype=np.uint16).view(np.float16)
    values = np.resize(values[np.isfinite(values)], (62, 1, 1, 32, 32))
    tensors = dict.fromkeys(ARRAYS, values)
    writer = AttentionWriter(tmp_path / "g.zarr", dict.fromkeys(ARRAYS, values.shape[1:]))
    writer.append(tensors)
    assert_same(read(tmp_path / "g.zarr", writer.close(), range(len(values))), tensors)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_close_that_was_interrupted_can_be_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Ctrl-C may come when one array has its metadata and the next has not."""
    writer = AttentionWriter(tmp_path / "g.zarr", SHAPES)
    writer.append(random_rows(SHARD_ROWS + 1))
    calls = []

    def interrupted(path: Path, data: bytes) -> None:
        calls.append(path)
        if len(calls) == number + 1:
            raise KeyboardInterrupt
        write_file(path, data)

    monkeypatch.setattr(attention, "write_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        writer.close()
    record = writer.close()
    assert_same(read(tmp_path / "g.zarr", record, range(SHARD_ROWS + 1)), random_rows(SHARD_ROWS + 1))
    group = zarr.open_group(tmp_path / "g.zarr", mode="r")
    assert_same({name: np.asarray(group[name]) for name in ARRAYS}, random_rows(SHARD_ROWS + 1))


def test_zero_rows_are_written_and_reading_none_is_an_error(tmp_path: Path) -> None:
    record = AttentionWriter(tmp_path / "g.zarr", SHAPES).close()
    assert zarr.open_group(tmp_path / "g.zarr", mode="r")["q"].shape == (0, *SHAPES["q"])
    with pytest.raises(ValueError, match="of one shape"):
        read(tmp_path / "g.zarr", record, [])


def test_shards_are_bounded_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row_bytes = 2 * int(np.prod(SHAPES["v"]))  # the largest of the three
    monkeypatch.setattr(attention, "SHARD_BYTES", 2 * row_bytes + 1)
    assert AttentionWriter(tmp_path / "g.zarr", SHAPES).record.shard_rows == 2
    monkeypatch.setattr(attention, "SHARD_BYTES", 1)
    assert AttentionWriter(tmp_path / "h.zarr", SHAPES).record.shard_rows == 1


@pytest.mark.parametrize("name", ARRAYS)
def test_rows_of_another_shape_are_refused(tmp_path: Path, name: str) -> None:
    writer = AttentionWriter(tmp_path / "g.zarr", SHAPES)
    for shape in ((2, 2, 1, 2, 4), SHAPES[name], (1, *SHAPES[name]), (3, *SHAPES[name])):
        with pytest.raises(ValueError, match="float16 of shape"):
            writer.append({**random_rows(2), name: np.zeros(shape, np.float16)})
    with pytest.raises(ValueError, match=r"float16 of shape .* expected, got float32"):
        writer.append({**random_rows(2), name: random_rows(2)[name].astype(np.float32)})


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
def test_values_that_are_no_numbers_are_refused(name: str, value: float) -> None:
    tensors = random_rows(2)
    tensors[name][1, 1, 0, 0, 1] = value
    with pytest.raises(DiffSimError, match=f"{name} tensors do not fit float16"):
        CODECS["qkv-float16"].encode(tensors)


@pytest.mark.parametrize("codec", CODECS)
def test_every_codec_is_read_here_and_by_zarr(tmp_path: Path, codec: str) -> None:
    rng = np.random.default_rng(1)
    hidden = rng.standard_normal((SHARD_ROWS + 1, 2, 5, 4)).astype(np.float32)
    floats: Arrays = {"h": hidden} if CODECS[codec].hidden else random_rows(SHARD_ROWS + 1)
    stored = CODECS[codec].encode(floats)
    writer = AttentionWriter(tmp_path / "g.zarr", {name: rows.shape[1:] for name, rows in stored.items()}, codec)
    writer.append(stored)
    record = writer.close()
    found = read(tmp_path / "g.zarr", record, range(SHARD_ROWS + 1))
    group = zarr.open_group(tmp_path / "g.zarr", mode="r")
    assert group.attrs["codec"] == codec
    for array in CODECS[codec].arrays:
        inside = group[array.name]
        assert isinstance(inside, zarr.Array)
        assert inside.metadata.dimension_names == ("rows", *array.axes)  # type: ignore[union-attr]
        assert found[array.name].dtype == inside.dtype == np.dtype(array.dtype)
        np.testing.assert_array_equal(found[array.name], stored[array.name])
        np.testing.assert_array_equal(np.asarray(inside), stored[array.name])


def test_a_codec_of_a_newer_version_is_told(tmp_path: Path) -> None:
    record = replace(write(tmp_path / "g.zarr", random_rows(1), [1]), codec="hidden-int2")
    with pytest.raises(IndexIncompatibleError, match=r"unknown codec 'hidden-int2'; known: qkv-float16.*; update"):
        read(tmp_path / "g.zarr", record, [0])


def test_groups_of_different_shapes_are_not_mixed(tmp_path: Path) -> None:
    record = write(tmp_path / "g.zarr", random_rows(1), [1])
    other = AttentionRecord({**SHAPES, "v": (2, 1, 2, 4)}, SHARD_ROWS)
    with pytest.raises(ValueError, match="of one shape"):
        read_rows([StoredRow(tmp_path / "g.zarr", record, 0), StoredRow(tmp_path / "g.zarr", other, 0)])
