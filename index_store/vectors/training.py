"""Train an IVF index over one encoder's vectors and measure how many lists a search must probe.

Every number of lists is measured, not guessed: the fewest with which queries find 99.7 % of their exact nearest
neighbours. The queries are items moved by noise, since a picture that is searched may be unlike any item. Vectors
without structure end with all lists.
"""

import logging
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from index_store.checks.opening import exists_inside, list_inside, remove_file
from index_store.files import FileRecord, atomic_write, replace_by, writing
from index_store.layout import Layout, file_name
from index_store.vectors.exact import Floats, with_spare
from index_store.vectors.flat import import_faiss
from index_store.vectors.ivf import MEASURED_COUNTS, IVFRecord, find_valid_record
from index_store.vectors.reader import VectorPart, VectorReader
from index_store.vectors.storage import normalised

LOG = logging.getLogger(__name__)

IVF_FROM_ROWS = 20_000  # rows; below that an exact scan takes a millisecond or two (DESIGN.md)
NEW_SHARE = 0.1  # of the rows may be newer than the training: they are scanned
TARGET_RECALL = 0.997  # of the exact nearest, on the mean of RECALL_QUERIES queries; then others find 0.99
RECALL_QUERIES = 64
QUERY_NOISE = 0.5  # length of what is added to an item of norm 1: a picture that is only akin to items
VECTORS_PER_LIST = 64  # to train on
KMEANS_ROUNDS = 8
ROWS_PER_ADD = 65_536
RANGE_MARGIN = 0.1  # of the numbers' range in the sample, on both sides: few other vectors go beyond, and are clipped
ROUNDING = 1e-4  # of a distance in float32, relatively; a thousand roundings are less

ReadParts = Callable[[], Iterable[VectorPart]]


def train_where_due(vectors: VectorReader, on_train: Callable[[str], None] = lambda encoder: None) -> None:
    """Train an IVF index for every encoder with many rows whose index is missing or old. The caller holds the lock.

    Args:
        vectors: of the generation to train on.
        on_train: called with the encoder's name before each training.
    """
    layout, generation = vectors.layout, vectors.generation
    for encoder in generation.encoders:
        live_rows = vectors.live_rows(encoder)
        if is_due(layout, encoder, vectors.checksums(encoder), live_rows):
            on_train(encoder)
            train(layout, encoder, partial(vectors.parts, encoder), sum(live_rows.values()), generation.number)


def is_due(layout: Layout, encoder: str, checksums: Mapping[str, int], live_rows: Mapping[str, int]) -> bool:
    """Say whether training would pay: the index is large, and many rows are newer than the last training.

    Args:
        layout: of the index.
        encoder: whose vectors.
        checksums: of the vectors and ids of each segment, by segment.
        live_rows: number of live vectors, by segment.
    """
    rows = sum(live_rows.values())
    if rows < IVF_FROM_ROWS:
        return False
    record = find_valid_record(layout, encoder, checksums)
    if record is None or not exists_inside(layout.derived / record.file):
        return True
    new = sum(count for name, count in live_rows.items() if name not in record.segments)
    return new > max(IVF_FROM_ROWS, NEW_SHARE * rows)


def train(layout: Layout, encoder: str, parts: ReadParts, rows: int, stamp: int) -> IVFRecord:
    """Train, fill, measure and store an index of ``rows`` vectors; remove the encoder's older one.

    Args:
        layout: of the index.
        encoder: whose vectors.
        parts: reads every segment; called twice, so that only one segment is in memory at a time.
        rows: number of live vectors.
        stamp: the generation's number. It makes the file's name new, so that running searches keep theirs.
    """
    faiss = import_faiss()
    lists = _list_count(rows)
    sample = _sample(parts, rows, VECTORS_PER_LIST * lists)
    index = _trained(faiss, sample, lists)
    queries = _queries(sample)
    filled = _fill(faiss, index, parts, queries)
    (probes, recall), *more = _measure(faiss, index, queries, filled.nearest)
    path = layout.ivf_index(encoder, stamp)
    with writing(path):
        # Not by its name: FAISS would write through a symbolic link.
        replace_by(path, lambda file: faiss.write_index(index, faiss.PyCallbackIOWriter(file.write)))
    file = FileRecord.of(path)
    more_probes = {str(count): each for count, (each, _) in zip(MEASURED_COUNTS[1:], more, strict=True)}
    found = int(index.ntotal)  # fewer than ``rows`` if some are not finite
    record = IVFRecord(
        path.name,
        file.size,
        file.crc32c,
        filled.segments,
        found,
        lists,
        probes,
        recall,
        filled.error,
        more_probes,
    )
    atomic_write(layout.ivf_record(encoder), record.to_json())
    LOG.info("%s: trained %d lists over %d vectors; probes %d, recall %.3f", path, lists, found, probes, recall)
    _remove_older(layout, encoder, path)
    return record


def _list_count(rows: int) -> int:
    """Return the power of two nearest to twice the square root of ``rows``."""
    return 1 << round(float(np.log2(2 * np.sqrt(rows))))


def _sample(parts: ReadParts, rows: int, count: int) -> Floats:
    """Return about ``count`` vectors, evenly over the index, as float32; the same ones for the same index."""
    step, offset, found = max(1, rows // count), 0, []
    for part in parts():
        found.append(part.vectors[(-offset) % step :: step].astype(np.float32))
        offset += len(part.ids)
    return np.concatenate(found)


def _trained(faiss: Any, sample: Floats, lists: int) -> Any:
    """Return an empty index whose lists were found by k-means over ``sample [vectors, dim]``."""
    dim = sample.shape[1]
    index = faiss.IndexIVFScalarQuantizer(
        faiss.IndexFlatIP(dim), dim, lists, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT, False
    )
    index.sq.rangestat_arg = RANGE_MARGIN
    index.cp.niter, index.cp.seed = KMEANS_ROUNDS, 0
    index.cp.min_points_per_centroid, index.cp.max_points_per_centroid = 1, VECTORS_PER_LIST
    index.train(sample)
    return index


def _queries(sample: Floats) -> Floats:
    """Return RECALL_QUERIES vectors of norm 1 near some of ``sample [vectors, dim]``, or fewer for a small sample."""
    items = sample[:: max(1, len(sample) // RECALL_QUERIES)][:RECALL_QUERIES]
    noise = np.random.default_rng(0).standard_normal(items.shape, dtype=np.float32)
    return normalised(items + QUERY_NOISE * normalised(noise))


class _Filled(NamedTuple):
    segments: dict[str, int]  # a checksum of each segment's vectors and ids, by the segment's name
    error: float  # the greatest distance of a vector from its 8-bit form
    nearest: NDArray[np.int64]  # the ids with the largest products with each query, best first, [queries, ids]


def _fill(faiss: Any, index: Any, parts: ReadParts, queries: Floats) -> _Filled:
    """Add all vectors to ``index``, and compare each with its 8-bit form and with ``queries [queries, dim]``."""
    segments, error = dict[str, int](), 0.0
    nearest = faiss.ResultHeap(len(queries), MEASURED_COUNTS[-1], keep_max=True)
    for part in parts():
        segments[part.segment] = part.crc32c
        for start in range(0, len(part.ids), ROWS_PER_ADD):
            some = slice(start, start + ROWS_PER_ADD)
            vectors, ids = part.vectors[some].astype(np.float32), part.ids[some]
            index.add_with_ids(vectors, ids)
            off = vectors - index.sq.decode(index.sq.compute_codes(vectors))
            error = max(error, float(np.sqrt(np.einsum("rd,rd->r", off, off).max())))
            products, found = faiss.knn(
                queries, vectors, min(len(ids), MEASURED_COUNTS[-1]), faiss.METRIC_INNER_PRODUCT
            )
            nearest.add_result(products, ids[found])
    nearest.finalize()
    return _Filled(segments, (1 + ROUNDING) * error, nearest.I[:, : index.ntotal])


def _measure(faiss: Any, index: Any, queries: Floats, exact: NDArray[np.int64]) -> list[tuple[int, float]]:
    """Return, for each of MEASURED_COUNTS, the least probes that reach the target, and their recall.

    They are doubled until they do, and then lowered by a quarter and by an eighth where that does. A search orders what
    it fetches by exact cosines, so it finds those of the ``exact`` nearest ids that it fetches.
    """
    lists, measured = int(index.nlist), list[tuple[int, float]]()
    probes = max(1, lists // 512)
    for count in MEASURED_COUNTS:
        recall_of = cache(partial(_recall, faiss, index, queries, exact[:, :count], count))
        while recall_of(probes) < TARGET_RECALL and probes < lists:
            probes = min(2 * probes, lists)
        for step in (probes // 4, probes // 8):
            probes -= step if recall_of(probes - step) >= TARGET_RECALL else 0
        measured.append((probes, recall_of(probes)))
    return measured


def _recall(faiss: Any, index: Any, queries: Floats, wanted: NDArray[np.int64], count: int, probes: int) -> float:
    """Return the mean share of each query's ``wanted`` ids that a search of ``count`` rows fetches."""
    options = faiss.SearchParametersIVF(nprobe=probes)
    fetched = index.search(queries, min(with_spare(count), index.ntotal), params=options)[1]
    return float(np.mean([np.isin(mine, found).mean() for found, mine in zip(fetched, wanted, strict=True)]))


def _remove_older(layout: Layout, encoder: str, newest: Path) -> None:
    ours = re.compile(re.escape(file_name(encoder)) + r"-\d+\.faiss")  # dinov2-base-000001.faiss is not of dinov2
    for name in list_inside(layout.derived):
        if ours.fullmatch(name) and name != newest.name:
            with suppress(OSError):
                remove_file(layout.derived / name)
