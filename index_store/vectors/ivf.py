"""A trained FAISS index over one encoder's vectors, for indexes whose exact scan would be slow or large.

It lies in ``derived/``: nothing depends on it, it may be deleted at any time, and the next build makes it again. Its
inverted lists hold the stored float16 numbers themselves, so that whatever is probed is scored exactly and costs the
vectors' own bytes, memory-mapped. How many lists are probed is not guessed: it is measured on items of the index
against probing all of them, which is the exact answer, for a few numbers of rows that may be wanted; for more than the
largest of these all lists are probed. Vectors without any structure end at probing all lists.
"""

import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index_store.errors import IndexCorruptError
from index_store.files import FileRecord, atomic_write, check_file, writing
from index_store.layout import Layout
from index_store.vectors.exact import Floats
from index_store.vectors.flat import import_faiss

IVF_FROM_ROWS = 20_000  # rows; below that an exact scan takes a millisecond or two (DESIGN.md)
REST = 0.1  # of the rows may be new since the training: they are scanned
TARGET_RECALL = 0.99  # of as many exact nearest as are wanted, on the mean of RECALL_QUERIES items
RECALL_AT = (256, 1024, 4096)  # wanted: it is measured for these; 200 candidates, and some copies that are left out
RECALL_QUERIES = 32
_SPARE = 16  # rows taken beyond those wanted, and an eighth: float16 norms vary by 1e-3, and so does the order by them
_SAMPLE = 64  # training vectors a list
_ROUNDS = 8  # of k-means
_BLOCK = 65_536  # rows added at a time

Part = tuple[str, int, NDArray[np.int64], NDArray[np.float16]]
"""A segment: its name, the CRC-32C of its vectors' file, the live rows' ids, and their vectors ``[rows, dim]``."""
ReadParts = Callable[[], Iterable[Part]]


@dataclass(frozen=True)
class IVFRecord:
    """What a trained file is: ``derived/<encoder>.json``."""

    file: str  # its name in derived/
    size: int
    crc32c: int
    segments: dict[str, int]  # those whose rows it holds, and the CRC-32C of their vectors' files
    rows: int
    lists: int
    probes: int
    recall: float  # measured, with so many probes, of the first of RECALL_AT
    more_probes: dict[str, int] = field(default_factory=dict)  # where more are wanted: by how many at most

    def to_json(self) -> bytes:
        """Return the file's bytes."""
        return json.dumps(asdict(self), indent=1).encode()

    def probes_for(self, count: int) -> int:
        """Return how many lists are to be probed for ``count`` rows: all, where that was not measured."""
        enough = (probes for most, probes in self.more_probes.items() if count <= int(most))
        return self.probes if count <= RECALL_AT[0] else min(enough, default=self.lists)


def train(layout: Layout, encoder: str, parts: ReadParts, rows: int, stamp: int) -> IVFRecord:
    """Train, fill, measure and store an index of ``rows`` vectors; replace the encoder's older one.

    Args:
        layout: where.
        encoder: whose vectors.
        parts: reads every segment; called twice, so that never more than one is in memory.
        rows: live rows in all.
        stamp: makes the file's name new, so that searches keep the file they opened.
    """
    faiss = import_faiss()
    lists = _lists(rows)
    sample = _sample(parts, rows, _SAMPLE * lists)
    dim = sample.shape[1]
    index = faiss.IndexIVFScalarQuantizer(
        faiss.IndexFlatIP(dim), dim, lists, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT, False
    )
    index.cp.niter, index.cp.seed = _ROUNDS, 0
    index.cp.min_points_per_centroid, index.cp.max_points_per_centroid = 1, _SAMPLE
    index.train(sample)
    held: dict[str, int] = {}
    for name, checksum, ids, vectors in parts():
        held[name] = checksum
        for start in range(0, len(ids), _BLOCK):
            index.add_with_ids(vectors[start : start + _BLOCK].astype(np.float32), ids[start : start + _BLOCK])
    queries = sample[:: max(1, len(sample) // RECALL_QUERIES)][:RECALL_QUERIES]
    (probes, recall), *more = _measure(faiss, index, queries, lists)
    path = layout.derived / f"{encoder}-{stamp:06d}.faiss"
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        faiss.write_index(index, str(path))
    found = FileRecord.of(path)
    more_probes = {str(count): each for count, (each, _) in zip(RECALL_AT[1:], more, strict=True)}
    record = IVFRecord(path.name, found.size, found.crc32c, held, rows, lists, probes, recall, more_probes)
    atomic_write(layout.trained(encoder), record.to_json())
    for old in layout.derived.glob(f"{encoder}-*.faiss"):
        if old.name != path.name:
            with suppress(OSError):
                old.unlink()
    return record


def _lists(rows: int) -> int:
    """Return the power of two nearest to twice the square root of ``rows``."""
    return 1 << round(float(np.log2(2 * np.sqrt(rows))))


def _sample(parts: ReadParts, rows: int, count: int) -> Floats:
    """Return about ``count`` vectors, evenly over the index, as float32; the same ones for the same index."""
    step, offset, found = max(1, rows // count), 0, []
    for _, _, ids, vectors in parts():
        found.append(vectors[(-offset) % step :: step].astype(np.float32))
        offset += len(ids)
    return np.concatenate(found)


def _measure(faiss: Any, index: Any, queries: Floats, lists: int) -> list[tuple[int, float]]:
    """Return for each of RECALL_AT the least number of probes that reaches the target, by doubling, and its recall."""

    def nearest(count: int, probes: int) -> NDArray[np.int64]:
        found: NDArray[np.int64] = index.search(queries, count, params=faiss.SearchParametersIVF(nprobe=probes))[1]
        return found

    exact, probes, measured = nearest(min(RECALL_AT[-1], index.ntotal), lists), max(1, lists // 128), []
    for count in RECALL_AT:
        recall = 1.0
        while probes < lists:
            pairs = zip(nearest(count, probes), exact[:, :count], strict=True)
            recall = float(np.mean([len(np.intersect1d(a, b)) / len(b) for a, b in pairs]))
            if recall >= TARGET_RECALL:
                break
            probes *= 2
        measured.append((probes, 1.0 if probes >= lists else recall))
    return measured


class IVFIndex:
    """A stored index, memory-mapped; safe to search from many threads."""

    def __init__(self, path: Path, record: IVFRecord, without: NDArray[np.int64]) -> None:
        """Open the file of ``record``; searches leave out the ids ``without``."""
        faiss = import_faiss()
        self._dead = faiss.IDSelectorBatch(without)  # must outlive the searches: FAISS holds a bare pointer
        self._chosen = faiss.IDSelectorNot(self._dead) if len(without) else None
        self._options, self._record = faiss.SearchParametersIVF, record
        self._index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
        self._index.set_direct_map_type(faiss.DirectMap.Hashtable)

    def search(self, query: Floats, count: int) -> NDArray[np.int64]:
        """Return at least ``count`` ids nearest to ``query [dim]``, or all that there are, in no order.

        Lists are probed as was measured for so many; where they hold fewer, twice as many lists, in the end all.
        """
        taken, probes = count + count // 8 + _SPARE, self._record.probes_for(count)
        while True:
            options = self._options(nprobe=probes, sel=self._chosen)
            ids: NDArray[np.int64] = self._index.search(query[None], taken, params=options)[1][0]
            ids = ids[ids >= 0]
            if len(ids) >= count or probes >= self._record.lists:
                return ids
            probes *= 2

    @property
    def dim(self) -> int:
        """Entries of a vector."""
        return int(self._index.d)

    def vectors(self, ids: NDArray[np.int64]) -> Floats:
        """Return the stored numbers of ``ids``, float32 ``[len(ids), dim]``."""
        found: Floats = self._index.reconstruct_batch(ids)
        return found


def open_ivf(
    layout: Layout, encoder: str, segments: dict[str, int], without: NDArray[np.int64]
) -> tuple[IVFRecord, IVFIndex] | None:
    """Open the encoder's trained index, where there is a whole one over nothing but ``segments`` (names, checksums).

    Its searches leave out the ids ``without``. What is missing, damaged or of other segments is no error: the caller
    scans the vectors instead.
    """
    record = _record_of(layout, encoder, segments)
    if record is None:
        return None
    path = layout.derived / record.file
    try:
        check_file(path, FileRecord(record.size, record.crc32c))
        return record, IVFIndex(path, record, without)
    except (IndexCorruptError, RuntimeError):  # FAISS raises RuntimeError for a file that is gone by now
        return None


def _record_of(layout: Layout, encoder: str, segments: dict[str, int]) -> IVFRecord | None:
    """Return what is known of the encoder's trained index if all that it holds is in ``segments``."""
    record = read_record(layout, encoder)
    return record if record is not None and record.segments.items() <= segments.items() else None


def read_record(layout: Layout, encoder: str) -> IVFRecord | None:
    """Read what is known of the encoder's trained index; None where there is none."""
    try:
        values = json.loads(layout.trained(encoder).read_bytes())
        return IVFRecord(**values)
    except (OSError, ValueError, TypeError):
        return None


def is_due(layout: Layout, encoder: str, segments: dict[str, int], sizes: dict[str, int]) -> bool:
    """Say whether training would pay: the index is large, and most of what is new since the last time is not in it.

    Args:
        layout: where.
        encoder: whose vectors.
        segments: by name, the CRC-32C of the vectors' file.
        sizes: by name, live rows.
    """
    rows = sum(sizes.values())
    if rows < IVF_FROM_ROWS:
        return False
    record = _record_of(layout, encoder, segments)
    if record is None or not (layout.derived / record.file).exists():
        return True
    rest = sum(size for name, size in sizes.items() if name not in record.segments)
    return rest > max(IVF_FROM_ROWS, REST * rows)
