"""A FAISS IVF index over one encoder's vectors, for indexes whose exact scan would be slow or large.

It lies in ``derived/``: nothing depends on it, and the next build makes it again if it is gone. Its inverted lists hold
8 bits of every number, half the bytes of the stored float16. They choose rows, whose exact cosines
:class:`index_store.vectors.mapped.MappedVectors` gives. :mod:`index_store.vectors.training` makes the file.
"""

import json
import logging
from collections.abc import Callable, Container, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index_store.checks.ivf_file import MOST_LISTS, read_ivf_file
from index_store.checks.json_values import (
    MOST_BYTES,
    MOST_CRC,
    MOST_ROWS,
    mapping,
    numbers,
    parse_json,
    share,
    whole_number,
)
from index_store.checks.names import component
from index_store.errors import IndexCorruptError, IndexStoreError
from index_store.files import FileRecord, open_regular
from index_store.layout import Layout, file_name
from index_store.row_locations import is_among
from index_store.vectors.exact import Floats, Ranked, Rows, selector_of, with_spare
from index_store.vectors.flat import import_faiss
from index_store.vectors.mapped import MappedFile, name_of

LOG = logging.getLogger(__name__)

MOST_RECORD = 1 << 24  # bytes
MOST_ERROR = 2.0**20  # far more than vectors of norm 1 can be off
MEASURED_COUNTS = (256, 1024, 4096)  # wanted rows that probes are measured for; 200 candidates and some duplicates


@dataclass(frozen=True)
class IVFRecord:
    """The content of ``derived/<encoder>.json``: a trained file, and how many lists to probe in it."""

    file: str  # its name in derived/
    size: int  # bytes
    crc32c: int
    segments: dict[str, int]  # whose rows it holds, and a checksum of their vectors and ids
    rows: int
    lists: int
    probes: int  # lists to probe for MEASURED_COUNTS[0] rows
    recall: float  # measured with that many probes
    error: float  # the greatest distance of a stored vector from its 8-bit form
    more_probes: dict[str, int] = field(default_factory=dict)  # lists to probe, by the most rows wanted

    def to_json(self) -> bytes:
        """Return the file's bytes."""
        return json.dumps(asdict(self), indent=1).encode()

    def probes_for(self, count: int) -> int:
        """Return how many lists to probe for ``count`` rows: all lists if that was not measured."""
        enough = (probes for most, probes in self.more_probes.items() if count <= int(most))
        return self.probes if count <= MEASURED_COUNTS[0] else min(enough, default=self.lists)


class IVFIndex:
    """A stored index, memory-mapped; safe to search from many threads."""

    def __init__(self, path: Path | str, record: IVFRecord, stored: NDArray[np.int64], live: NDArray[np.int64]) -> None:
        """Open the file of ``record``.

        Args:
            path: of the file, whose content was checked.
            record: how many lists it has, and how many to probe.
            stored: the ids in the file.
            live: the ids that may be found, ascending; searches leave out the file's other ids.

        Raises:
            ValueError: the file holds an id twice, or a negative one.
        """
        faiss, stored = import_faiss(), np.sort(stored)
        if (stored[1:] == stored[:-1]).any() or (stored[:1] < 0).any():
            raise ValueError("it holds an id twice, or a negative one")
        same = np.array_equal(live, stored)  # mostly; then no search among millions of ids
        self.ids = live if same else live[is_among(live, stored)]
        self.stored: dict[str, MappedFile] = {}  # the vectors as stored, by the segment that holds them
        without = stored[:0] if same else stored[~is_among(stored, self.ids)]
        # Must outlive the searches: FAISS holds a bare pointer.
        self._removed = selector_of(faiss, without, int(stored[-1]) + 1) if len(without) else None
        self._selector = None if self._removed is None else faiss.IDSelectorNot(self._removed)
        self._options, self._record = faiss.SearchParametersIVF, record
        self._probing = cache(partial(self._options, sel=self._selector))  # few numbers of probes occur
        self._index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
        # By default every search starts up to 32 threads that read its lists ahead, which takes longer than the search.
        faiss.downcast_InvertedLists(self._index.invlists).prefetch_nthread = 0

    def search(self, query: Floats, count: int) -> NDArray[np.int64]:
        """Return at least ``count`` ids nearest to ``query [dim]``, or all ids if there are fewer, in no order.

        Probes as many lists as were measured for ``count``; if these hold fewer ids, twice as many, in the end all.
        """
        probes = self.probes_for(count)
        while True:
            ids = self.probe(query, count, probes)[0]
            if len(ids) >= count or probes >= self.lists:
                return ids
            probes *= 2

    @property
    def lists(self) -> int:
        """How many lists there are."""
        return self._record.lists

    def probes_for(self, count: int) -> int:
        """Return how many lists were measured to be enough for ``count`` rows."""
        return self._record.probes_for(count)

    def probe(self, query: Floats, count: int, probes: int) -> Ranked:
        """Return the ids with the largest products with ``query [dim]`` in so many lists, and these, in no order.

        There are :func:`with_spare` of ``count`` at most, since products of 8-bit numbers tell less than cosines.
        """
        options = self._probing(nprobe=probes)
        products, ids = self._index.search(query[None], with_spare(count), params=options)
        there = ids[0] >= 0
        return ids[0][there], products[0][there]

    def search_among(self, query: Floats, count: int, ids: Rows) -> Ranked:
        """Return the ``count`` of ``ids`` with the largest products with ``query [dim]``, and these, in no order.

        All lists are probed: the lists that hold the nearest of some ids may be far from the query.

        Args:
            query: a vector of norm 1.
            count: at most as many as there are ``ids``.
            ids: live ids of this index, ascending.
        """
        selector = selector_of(import_faiss(), ids, int(ids[-1]) + 1)
        options = self._options(nprobe=self._record.lists, sel=selector)
        products, found = self._index.search(query[None], count, params=options)
        return found[0], products[0]

    def search_many(self, queries: Floats, count: int) -> NDArray[np.int64]:
        """Return ids near to each of ``queries [queries, dim]``, in no order: :func:`with_spare` of ``count`` each.

        Each query probes the lists that were measured for ``count``. A place without an id holds -1.
        """
        options = self._probing(nprobe=self._record.probes_for(count))
        ids: NDArray[np.int64] = self._index.search(np.ascontiguousarray(queries), with_spare(count), params=options)[1]
        return ids

    @property
    def dim(self) -> int:
        """Entries of a vector."""
        return int(self._index.d)

    @property
    def error(self) -> float:
        """The greatest distance of a stored vector from its 8-bit form, of which products are taken."""
        return self._record.error


def open_ivf(
    layout: Layout,
    encoder: str,
    checksums: Mapping[str, int],
    ids_of: Callable[[Container[str]], NDArray[np.int64]],
    vectors_of: Callable[[str], MappedFile],
) -> IVFIndex | None:
    """Open the encoder's IVF index; None if it is missing, damaged or of other segments: then scan the vectors.

    Args:
        layout: of the index.
        encoder: whose vectors.
        checksums: of the vectors and ids of each segment, by segment.
        ids_of: returns the live ids, ascending, whose vectors lie in segments of these names.
        vectors_of: maps the vectors in the segment of this name.
    """
    record = find_valid_record(layout, encoder, checksums)
    if record is None:
        return None
    path = layout.derived / record.file
    try:
        with open_regular(path) as file:
            if FileRecord.read(file) != FileRecord(record.size, record.crc32c):
                raise ValueError("it has changed since it was written")
            file.seek(0)
            found = read_ivf_file(file, record.size, record.rows, record.lists)
            file.seek(0)
            index = IVFIndex(name_of(file), record, found.ids, ids_of(record.segments))
        for segment in record.segments:
            index.stored[segment] = vectors_of(segment)
            if index.stored[segment].dim != found.dim:
                raise ValueError(f"its vectors have {found.dim} numbers, those of segment {segment} do not")
        return index
    except (IndexStoreError, OSError, ValueError, RuntimeError) as error:
        # FAISS raises RuntimeError if the file vanishes meanwhile.
        LOG.warning("%s can't be used, so searches scan all vectors until the next build: %s", path, error)
        return None


def find_valid_record(layout: Layout, encoder: str, checksums: Mapping[str, int]) -> IVFRecord | None:
    """Return the record of the encoder's IVF index if every segment in it is among ``checksums``."""
    record = read_record(layout, encoder)
    return None if record is None or not record.segments.items() <= checksums.items() else record


def read_record(layout: Layout, encoder: str) -> IVFRecord | None:
    """Read the record of the encoder's IVF index; None if it is missing or damaged."""
    path = layout.ivf_record(encoder)
    try:
        with open_regular(path) as file:
            return record_of(encoder, file.read(MOST_RECORD))
    except FileNotFoundError:
        return None
    except (OSError, IndexCorruptError, ValueError, KeyError, TypeError) as error:
        LOG.warning("%s can't be used, so searches scan all vectors until the next build: %s", path, error)
        return None


def record_of(encoder: str, data: bytes) -> IVFRecord:
    """Return the record in the bytes of ``derived/<encoder>.json``; ValueError, KeyError or TypeError if it is none."""
    values = mapping(parse_json(data), "the file")
    if "error" not in values:
        raise ValueError("an earlier version made it, with float16 lists")
    name = component(values["file"], "a file")
    if not name.startswith(f"{file_name(encoder)}-") or not name.endswith(".faiss"):
        raise ValueError(f"it names the file {name}")
    lists = whole_number(values["lists"], "lists", 1, MOST_LISTS)
    more = mapping(values.get("more_probes", {}), "more_probes")
    for probes in (values["probes"], *more.values()):
        whole_number(probes, "a number of probes", 1, lists)
    for most in more:
        whole_number(int(most), "a number of rows", 1, MOST_ROWS)
    for segment, checksum in mapping(values["segments"], "segments").items():
        component(segment, "a segment")
        whole_number(checksum, "a checksum", 0, MOST_CRC)
    whole_number(values["rows"], "rows", 0, MOST_ROWS)
    whole_number(values["size"], "size", 0, MOST_BYTES)
    whole_number(values["crc32c"], "a checksum", 0, MOST_CRC)
    share(values["recall"], "recall")
    numbers([values["error"]], "the distance of 8-bit vectors", 0, MOST_ERROR, 1)
    return IVFRecord(**values)
