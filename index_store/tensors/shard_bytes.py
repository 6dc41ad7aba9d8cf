"""The bytes of a shard: rows, each with its CRC-32C, and an index of their places, as Zarr v3 lays them out."""

from collections.abc import Sequence
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from index_store.tensors.compression import compressed

CRC_BYTES = 4
ENTRY = np.dtype([("offset", "<u8"), ("size", "<u8")])  # of a row, in a shard's index


def plain_shard(rows: Sequence[NDArray[Any]], shard_rows: int) -> memoryview:
    """Return a shard's bytes: each row with its checksum, one after the other, then the shard's index."""
    size = rows[0].nbytes
    end = len(rows) * (size + CRC_BYTES)
    shard = np.empty(end + shard_rows * ENTRY.itemsize + CRC_BYTES, np.uint8)
    body = shard[:end].reshape(len(rows), -1)
    for into, row in zip(body, rows, strict=True):
        into[:size] = np.ascontiguousarray(row).reshape(-1).view(np.uint8)
        into[size:] = np.frombuffer(crc_of(into[:size]), np.uint8)
    shard[end:] = np.frombuffer(_index_of([body.shape[1]] * len(rows), shard_rows), np.uint8)
    return shard.data


def compressed_shard(rows: Sequence[NDArray[Any]], shard_rows: int) -> memoryview:
    """Return the same of rows that are compressed, which differ in size."""
    chunks = [frame + crc_of(frame) for frame in map(compressed, rows)]
    return memoryview(b"".join([*chunks, _index_of([len(chunk) for chunk in chunks], shard_rows)]))


def _index_of(sizes: Sequence[int], shard_rows: int) -> bytes:
    entries = np.full(shard_rows, np.iinfo("<u8").max, ENTRY)  # of absent rows
    entries["offset"][: len(sizes)] = np.cumsum([0, *sizes[:-1]])
    entries["size"][: len(sizes)] = sizes
    index = entries.tobytes()
    return index + crc_of(index)


def crc_of(data: bytes | NDArray[np.uint8]) -> bytes:
    """Return the CRC-32C of ``data`` as it is stored."""
    return int(google_crc32c.value(data)).to_bytes(CRC_BYTES, "little")
