"""Check an IVF file of FAISS before FAISS reads it, and read its ids.

FAISS trusts the numbers in its files: a crafted one makes it hang, end the process, or read past the end. So every
field of the one kind of file that :mod:`index_store.vectors.training` writes is compared with the only value that it
may have. The vectors and ids themselves may be any numbers. The layout is that of FAISS's ``write_index``.
"""

import io
import struct
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

MOST_LISTS = 1 << 20
_HEADER = "<iqqqBi"  # d, ntotal, two unused numbers, is_trained, metric
_UNUSED = 1 << 20
_INNER_PRODUCT = 0
_EIGHT_BITS = 0  # faiss.ScalarQuantizer.QT_8bit


@dataclass(frozen=True)
class ListsOfIds:
    """What an IVF file holds, beside the vectors."""

    dim: int
    lists: int
    ids: NDArray[np.int64]  # in the order of the lists


class _Fields:
    """Reads fields one after the other; ValueError where one is cut off or not what it must be."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size

    def take(self, count: int) -> bytes:
        if not 0 <= count <= self._size - self._file.tell():
            raise ValueError("it ends early")
        return self._file.read(count)

    def skip(self, count: int) -> None:
        if not 0 <= count <= self._size - self._file.tell():
            raise ValueError("it ends early")
        self._file.seek(count, io.SEEK_CUR)

    def unpack(self, form: str) -> tuple[int, ...]:
        found: tuple[int, ...] = struct.unpack(form, self.take(struct.calcsize(form)))
        return found

    def expect(self, form: str, *values: int, what: str) -> None:
        found = self.unpack(form)
        if found != values:
            raise ValueError(f"{what} is {found} instead of {values}")

    def expect_name(self, name: bytes) -> None:
        found = self.take(4)
        if found != name:
            raise ValueError(f"it holds {found!r} instead of {name!r}")

    def at_end(self) -> bool:
        return self._file.tell() == self._size


def read_ivf_file(file: BinaryIO, size: int, rows: int, lists: int) -> ListsOfIds:
    """Check a file of ``size`` bytes that holds ``rows`` vectors of 8-bit codes in ``lists`` lists; return its ids.

    Raises:
        ValueError: any field differs from what FAISS writes for such an index.
    """
    fields = _Fields(file, size)
    fields.expect_name(b"IwSq")
    dim = fields.unpack(_HEADER)[0]
    if not 0 < dim <= 1 << 16 or not 0 < lists <= MOST_LISTS or rows < 0:
        raise ValueError(f"it has {dim} dimensions and {lists} lists")
    file.seek(4)
    fields.expect(_HEADER, dim, rows, _UNUSED, _UNUSED, 1, _INNER_PRODUCT, what="the header")
    if fields.unpack("<QQ")[0] != lists:
        raise ValueError("it has another number of lists")
    _check_centroids(fields, dim, lists)
    fields.expect("<BQ", 0, 0, what="the direct map")
    _check_quantizer(fields, dim)
    fields.expect_name(b"ilar")
    fields.expect("<QQ", lists, dim, what="the lists")
    sizes = _list_sizes(fields, lists, rows)
    ids = []
    for count in sizes.tolist():
        fields.skip(count * dim)
        ids.append(np.frombuffer(fields.take(8 * count), "<i8"))
    if not fields.at_end():
        raise ValueError("it goes on after its last list")
    return ListsOfIds(dim, lists, np.concatenate(ids).astype(np.int64))


def _check_centroids(fields: _Fields, dim: int, lists: int) -> None:
    fields.expect_name(b"IxFI")
    fields.expect(_HEADER, dim, lists, _UNUSED, _UNUSED, 1, _INNER_PRODUCT, what="the centroids' header")
    fields.expect("<Q", dim * lists, what="the centroids' size")
    if not np.isfinite(np.frombuffer(fields.take(4 * dim * lists), "<f4")).all():
        raise ValueError("a centroid is not finite")


def _check_quantizer(fields: _Fields, dim: int) -> None:
    fields.expect("<i", _EIGHT_BITS, what="the kind of numbers")
    fields.take(8)  # how ranges were measured, which reading does not do again
    fields.expect("<QQ", dim, dim, what="the size of a vector")
    fields.expect("<Q", 2 * dim, what="the number of bounds")
    if not np.isfinite(np.frombuffer(fields.take(8 * dim), "<f4")).all():
        raise ValueError("a bound is not finite")
    fields.expect("<QB", dim, 0, what="the size of a vector")


def _list_sizes(fields: _Fields, lists: int, rows: int) -> NDArray[np.int64]:
    """Return how many vectors each list holds; few non-empty lists are written as pairs of number and size."""
    kind = fields.take(4)
    if kind not in (b"full", b"sprs"):
        raise ValueError("its lists are kept in another way")
    (count,) = fields.unpack("<Q")
    if count > 2 * lists or (kind == b"full" and count != lists) or count % (1 + (kind == b"sprs")):
        raise ValueError(f"it has {count} sizes of lists")
    numbers = np.frombuffer(fields.take(8 * count), "<u8")
    if kind == b"sprs":
        pairs = numbers.reshape(-1, 2)
        if len(pairs) and (pairs[:, 0].max() >= lists or (np.diff(pairs[:, 0].astype(np.int64)) <= 0).any()):
            raise ValueError("a list is named twice, or is unknown")
        numbers = np.zeros(lists, np.uint64)
        numbers[pairs[:, 0].astype(np.int64)] = pairs[:, 1]
    if (numbers > rows).any() or int(numbers.sum()) != rows:
        raise ValueError(f"its lists hold other than {rows} vectors")
    return numbers.astype(np.int64)
