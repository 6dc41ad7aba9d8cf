"""Every damage to a shard of tensors is found, and named."""

import shutil
from pathlib import Path

import google_crc32c
import numpy as np
import pytest

from index_store.errors import IndexCorruptError
from index_store.generation import AttentionRecord
from index_store.tensors.attention import AttentionWriter
from tests.index_store.tensors.small_group import (
    ARRAYS,
    SHAPES,
    SHARD_ROWS,
    assert_same,
    random_rows,
    read,
    shard,
    write,
)
from tests.support.faults import flip_bit

pytestmark = pytest.mark.usefixtures("small_shards")


@pytest.mark.thorough
def test_any_flipped_bit_of_a_shard_is_found(tmp_path: Path) -> None:
    path = tmp_path / "g.zarr"
    record = write(path, random_rows(2), [2])
    for name in ARRAYS:
        victim = shard(path, name)
        bits = 8 * victim.stat().st_size
        for bit in range(0, bits, 1 if name == "k" else 13):
            flip_bit(victim, bit)
            with pytest.raises(IndexCorruptError) as caught:
                read(path, record, [0, 1])
            assert str(victim) in str(caught.value)
            flip_bit(victim, bit)
    assert_same(read(path, record, [0, 1]), random_rows(2))


def test_a_damaged_row_does_not_hide_the_others(tmp_path: Path) -> None:
    path = tmp_path / "g.zarr"
    tensors = random_rows(2 * SHARD_ROWS)
    record = write(path, tensors, [2 * SHARD_ROWS])
    flip_bit(shard(path), 5)  # in the first row
    others = list(range(1, 2 * SHARD_ROWS))
    assert_same(read(path, record, others), {name: tensors[name][others] for name in ARRAYS})


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("number", [0, 1])
def test_a_shard_that_is_not_whole_is_found(tmp_path: Path, name: str, number: int) -> None:
    path = tmp_path / "g.zarr"
    record = write(path, random_rows(SHARD_ROWS + 1), [SHARD_ROWS + 1])
    victim = shard(path, name, number)
    whole = victim.read_bytes()
    damaged = {
        "truncated": [whole[:length] for length in range(len(whole))],
        "zeroed": [bytes(len(whole))],
        "grown": [whole + b"\0"],
        "without its start": [whole[1:], whole[len(whole) // 2 :]],
    }
    for what, contents in damaged.items():
        for content in contents:
            victim.write_bytes(content)
            with pytest.raises(IndexCorruptError) as caught:
                read(path, record, range(SHARD_ROWS + 1))
            assert str(victim) in str(caught.value), what
    victim.unlink()
    with pytest.raises(IndexCorruptError, match="is missing") as caught:
        read(path, record, range(SHARD_ROWS + 1))
    assert str(victim) in str(caught.value)


def test_a_row_that_the_shard_lacks_is_found(tmp_path: Path) -> None:
    record = write(tmp_path / "g.zarr", random_rows(1), [1])
    with pytest.raises(IndexCorruptError, match="misses a row"):
        read(tmp_path / "g.zarr", record, [1])


def test_the_index_of_a_shard_is_never_taken_for_a_row(tmp_path: Path) -> None:
    """It has a checksum of its own, and with rows of its size it stands where a row was, once the start is lost."""
    shapes = dict.fromkeys(ARRAYS, (1, 1, 1, 8 * SHARD_ROWS))
    writer = AttentionWriter(tmp_path / "g.zarr", shapes)
    writer.append(
        {name: np.arange(1, 1 + shape[-1], dtype=np.float16).reshape(1, *shape) for name, shape in shapes.items()}
    )
    record = writer.close()
    victim = shard(tmp_path / "g.zarr")
    whole = victim.read_bytes()
    victim.write_bytes(whole[len(whole) // 2 :])
    with pytest.raises(IndexCorruptError, match="misses a row"):
        read(tmp_path / "g.zarr", record, [0])


def test_an_offset_beyond_every_file_is_found(tmp_path: Path) -> None:
    """Such an index has a right checksum, so only a writer's bug can make one; it must not end in a traceback."""
    record = write(tmp_path / "g.zarr", random_rows(1), [1])
    victim = shard(tmp_path / "g.zarr")
    data = bytearray(victim.read_bytes())
    index = slice(len(data) - 4 - 16 * SHARD_ROWS, len(data) - 4)
    data[index.start : index.start + 8] = (2**64 - 2).to_bytes(8, "little")
    data[index.stop :] = int(google_crc32c.value(bytes(data[index]))).to_bytes(4, "little")
    victim.write_bytes(data)
    with pytest.raises(IndexCorruptError) as caught:
        read(tmp_path / "g.zarr", record, [0])
    assert str(victim) in str(caught.value)


def test_a_missing_group_is_found(tmp_path: Path) -> None:
    record = write(tmp_path / "g.zarr", random_rows(1), [1])
    shutil.rmtree(tmp_path / "g.zarr")
    with pytest.raises(IndexCorruptError, match="is missing"):
        read(tmp_path / "g.zarr", record, [0])


@pytest.mark.parametrize("shard_rows", [1, 2, SHARD_ROWS + 1])
def test_a_wrong_record_never_gives_a_wrong_array(tmp_path: Path, shard_rows: int) -> None:
    write(tmp_path / "g.zarr", random_rows(1), [1])
    with pytest.raises(IndexCorruptError):
        read(tmp_path / "g.zarr", AttentionRecord(SHAPES, shard_rows), [0])
