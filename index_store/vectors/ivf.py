"""A FAISS IVF index over one encoder's vectors, for indexes whose exact scan would be slow or large.

It lies in ``derived/``: nothing depends on it, and the next build makes it again if it is gone. Its inverted lists hold
the stored float16 numbers themselves, without a quantiser. So every probed vector is scored exactly, and the
memory-mapped file takes as much space as the vectors. :mod:`index_store.vectors.training` makes it.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index_store.errors import IndexStoreError
from index_store.files import FileRecord, check_file
from index_store.layout import Layout
from index_store.vectors.exact import Floats, with_spare
from index_store.vectors.flat import import_faiss

LOG = logging.getLogger(__name__)

MEASURED_COUNTS = (256, 1024, 4096)  # wanted rows that probes are measured for; 200 candidates and some duplicates


@dataclass(frozen=True)
class IVFRecord:
    """The content of ``derived/<encoder>.json``: a trained file, and how many lists to probe in it."""

    file: str  # its name in derived/
    size: int  # bytes
    crc32c: int
    segments: dict[str, int]  # whose rows it holds, and the CRC-32C of their vectors' files
    rows: int
    lists: int
    probes: int  # lists to probe for MEASURED_COUNTS[0] rows
    recall: float  # measured with that many probes
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

    def __init__(self, path: Path, record: IVFRecord, without: NDArray[np.int64]) -> None:
        """Open the file of ``record``; searches leave out the ids ``without``."""
        faiss = import_faiss()
        self._removed = faiss.IDSelectorBatch(without)  # must outlive the searches: FAISS holds a bare pointer
        self._selector = faiss.IDSelectorNot(self._removed) if len(without) else None
        self._options, self._record = faiss.SearchParametersIVF, record
        self._index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
        self._index.set_direct_map_type(faiss.DirectMap.Hashtable)

    def search(self, query: Floats, count: int) -> NDArray[np.int64]:
        """Return at least ``count`` ids nearest to ``query [dim]``, or all ids if there are fewer, in no order.

        Probes as many lists as were measured for ``count``; if these hold fewer ids, twice as many, in the end all.
        """
        taken, probes = with_spare(count), self._record.probes_for(count)  # float16 norms vary by 1e-3
        while True:
            options = self._options(nprobe=probes, sel=self._selector)
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
    layout: Layout, encoder: str, checksums: Mapping[str, int], without: NDArray[np.int64]
) -> tuple[IVFRecord, IVFIndex] | None:
    """Open the encoder's IVF index; None if it is missing, damaged or of other segments: then scan the vectors.

    Args:
        layout: of the index.
        encoder: whose vectors.
        checksums: of the generation's files of vectors, by segment.
        without: ids that searches leave out.
    """
    record = find_valid_record(layout, encoder, checksums)
    if record is None:
        return None
    path = layout.derived / record.file
    try:
        check_file(path, FileRecord(record.size, record.crc32c))
        return record, IVFIndex(path, record, without)
    except (IndexStoreError, RuntimeError) as error:  # FAISS raises RuntimeError if the file vanishes meanwhile
        LOG.warning("%s can't be used, so searches scan all vectors until the next build: %s", path, error)
        return None


def find_valid_record(layout: Layout, encoder: str, checksums: Mapping[str, int]) -> IVFRecord | None:
    """Return the record of the encoder's IVF index if every segment in it is among ``checksums``."""
    record = read_record(layout, encoder)
    return record if record is not None and record.segments.items() <= checksums.items() else None


def read_record(layout: Layout, encoder: str) -> IVFRecord | None:
    """Read the record of the encoder's IVF index; None if it is missing or damaged."""
    path = layout.ivf_record(encoder)
    try:
        return IVFRecord(**json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        LOG.warning("%s can't be used, so searches scan all vectors until the next build: %s", path, error)
        return None
