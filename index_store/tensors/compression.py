"""Compression of rows that are partly zeros, such as histograms: Zstandard frames, as Zarr's codec ``zstd`` has them.

Most tensors are noise to a compressor, and stay as they are. An array of a group is compressed where that takes a
tenth of its bytes away. The level is one that leaves noise alone, because a search unpacks hundreds of rows.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

LEVEL = -1  # level 1 gains 4 % more on mini and takes twice as long to unpack
WORTH = 0.9  # of the plain bytes: the most that compressed rows may take
TRIED = 16  # rows that tell whether an array is compressed
_ZSTD = "zstd"
_MAGIC = b"\x28\xb5\x2f\xfd"
_SINGLE_SEGMENT = 0x20  # in the byte after the magic number; the two bits above tell the field's length
_DICTIONARY_BYTES, _SIZE_BYTES = (0, 1, 2, 4), (0, 2, 4, 8)


def is_worth_it(rows: Sequence[NDArray[Any]]) -> bool:
    """Say whether ``rows`` of an array shrink by a tenth; a few of them tell."""
    return stored_size(rows) < rows[0].nbytes


def stored_size(rows: Sequence[NDArray[Any]]) -> float:
    """Return the bytes that one of ``rows`` of an array takes in a group that begins with them, in the mean."""
    tried = rows[:: -(-len(rows) // TRIED)]
    size = sum(len(compressed(row)) for row in tried) / len(tried)
    return size if size <= WORTH * rows[0].nbytes else rows[0].nbytes


def compressed(row: NDArray[Any]) -> bytes:
    """Return ``row`` as one Zstandard frame, which states its length."""
    frame: bytes = pa.Codec(_ZSTD, compression_level=LEVEL).compress(np.ascontiguousarray(row).data, asbytes=True)
    return frame


def longest(size: int) -> int:
    """Return the most bytes that a frame of ``size`` bytes can have."""
    return size + size // 128 + 128


def decompress(frame: NDArray[np.uint8], into: NDArray[np.uint8]) -> None:
    """Fill ``into`` from ``frame``; ValueError if it holds anything but as many bytes.

    pyarrow does not tell how many bytes it found, so the frame's own statement is read, which Zstandard then enforces.
    """
    if _stated_size(frame[:18].tobytes()) != into.nbytes:
        raise ValueError("a compressed row states another length")
    try:
        plain = pa.decompress(frame, decompressed_size=into.nbytes, codec=_ZSTD)
    except (OSError, pa.ArrowException) as error:
        raise ValueError("a compressed row can't be unpacked") from error
    into[:] = np.frombuffer(plain, np.uint8)


def _stated_size(start: bytes) -> int | None:
    """Return the length that a frame's header states (RFC 8878, 3.1.1.1); None: it states none."""
    if len(start) < 5 or start[:4] != _MAGIC:
        return None
    flags = start[4]
    single, kind = bool(flags & _SINGLE_SEGMENT), flags >> 6
    length = _SIZE_BYTES[kind] or int(single)
    first = 5 + (not single) + _DICTIONARY_BYTES[flags & 3]
    if not length:
        return None
    return int.from_bytes(start[first : first + length], "little") + (256 if length == 2 else 0)
