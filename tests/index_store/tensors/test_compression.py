"""Rows that are partly zeros are stored compressed, and no frame leads a reader astray."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from index_store.errors import IndexCorruptError
from index_store.tensors.attention import AttentionWriter, StoredRow, read_rows
from index_store.tensors.compression import compressed, decompress, longest
from index_store.tensors.shard_bytes import CRC_BYTES, crc_of
from tests.index_store.tensors.small_group import SHARD_ROWS, shard
from tests.slices import examples

pytestmark = pytest.mark.usefixtures("small_shards")

SHAPES = {"q": (1, 1, 36, 40), "k": (1, 1, 36, 40), "v": (1, 1, 36, 40)}
COUNT = SHARD_ROWS + 1


def rows_of(zeros: float, seed: int = 0) -> NDArray[np.float16]:
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((COUNT, *SHAPES["q"])).astype(np.float16)
    values[..., : int(zeros * 40)] = 0
    return values


def written(path: Path, tensors: dict[str, NDArray[np.float16]]) -> StoredRow:
    writer = AttentionWriter(path, SHAPES)
    writer.append(tensors)
    return StoredRow(path, writer.close(), 0)


def read_all(first: StoredRow) -> dict[str, NDArray[np.float16]]:
    return read_rows(StoredRow(first.group, first.record, row) for row in range(COUNT))


def test_arrays_with_zeros_are_compressed_and_read_here_and_by_zarr(tmp_path: Path) -> None:
    tensors = {"q": rows_of(0.5), "k": rows_of(0), "v": rows_of(0.9)}
    first = written(tmp_path / "g.zarr", tensors)
    assert first.record.compressed == ("q", "v")
    found, group = read_all(first), zarr.open_group(tmp_path / "g.zarr", mode="r")
    for name, expected in tensors.items():
        np.testing.assert_array_equal(found[name].view(np.uint16), expected.view(np.uint16))
        np.testing.assert_array_equal(np.asarray(group[name]), expected)
    sizes = {name: shard(tmp_path / "g.zarr", name).stat().st_size for name in SHAPES}
    assert sizes["v"] < 0.3 * sizes["k"] < 0.3 * 2 * sizes["q"] < 0.5 * sizes["k"]


def test_the_first_shard_decides_for_a_group(tmp_path: Path) -> None:
    """A group has one rule for all its shards, so later rows may be noise, and rows of a plain group may be zeros."""
    mixed = np.concatenate([rows_of(0.9)[:SHARD_ROWS], rows_of(0)[:1]])
    first = written(tmp_path / "a.zarr", dict.fromkeys(SHAPES, mixed))
    assert first.record.compressed == ("q", "k", "v")
    np.testing.assert_array_equal(read_all(first)["q"], mixed)
    turned = written(tmp_path / "b.zarr", dict.fromkeys(SHAPES, mixed[::-1].copy()))
    np.testing.assert_array_equal(read_all(turned)["q"], mixed[::-1])


FRAME = compressed(rows_of(0.5)[0])
SIZE = rows_of(0.5)[0].nbytes
BAD_FRAMES = {
    "noise": bytes(range(200)),
    "empty": b"",
    "cut": FRAME[:-9],
    "another length": compressed(rows_of(0.5)[0].ravel()[:-1]),
    "two frames": FRAME + FRAME,
    "a changed length": FRAME[:5] + (SIZE + 1 - 256).to_bytes(2, "little") + FRAME[7:],
    "no length": FRAME[:4] + bytes([FRAME[4] & 0x1F]) + FRAME[5:],
}


@pytest.mark.parametrize("frame", BAD_FRAMES.values(), ids=BAD_FRAMES)
def test_a_frame_with_a_right_checksum_and_wrong_content_is_damage(tmp_path: Path, frame: bytes) -> None:
    """Only an author can make one; memory that was never written must not become a row."""
    first = written(tmp_path / "g.zarr", dict.fromkeys(SHAPES, rows_of(0.5)))
    victim = shard(tmp_path / "g.zarr")
    data = bytearray(victim.read_bytes())
    index = len(data) - CRC_BYTES - 16 * first.record.shard_rows
    chunk = frame + crc_of(frame)
    body, entries = bytearray(data[:index]), bytearray(data[index:-CRC_BYTES])
    entries[:16] = len(body).to_bytes(8, "little") + len(chunk).to_bytes(8, "little")
    victim.write_bytes(body + chunk + entries + crc_of(bytes(entries)))
    with pytest.raises(IndexCorruptError, match=r"can't be read|misses a row"):
        read_rows([first])


@settings(max_examples=examples(200), deadline=None)
@given(where=st.integers(0, len(FRAME) - 1), value=st.integers(0, 255))
def test_a_changed_byte_gives_a_row_of_the_length_or_an_error(where: int, value: int) -> None:
    changed = np.frombuffer(FRAME, np.uint8).copy()
    changed[where] = value
    into = np.zeros(SIZE, np.uint8)
    try:
        decompress(changed, into)
    except ValueError:
        assert value != FRAME[where]


@pytest.mark.parametrize("size", [1, 255, 256, 257, 65_791, 65_792, 1 << 20])
@pytest.mark.parametrize("level", [-5, 1, 9])
def test_frames_of_any_level_and_length_are_unpacked(size: int, level: int) -> None:
    row = np.random.default_rng(size).integers(0, 3, size, np.uint8)
    frame = pa.Codec("zstd", compression_level=level).compress(row.data, asbytes=True)
    into = np.zeros(size, np.uint8)
    decompress(np.frombuffer(frame, np.uint8), into)
    np.testing.assert_array_equal(into, row)
    assert len(frame) <= longest(size)
