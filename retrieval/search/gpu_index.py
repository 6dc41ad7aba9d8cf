"""A flat vector index on a GPU: an encoder's vectors in its memory, all compared with the query.

Results equal those of :class:`index_store.vectors.flat.FlatIndex` to the bit: the device's products only choose the
rows worth a look, and the same float32 arithmetic on the host orders them. Products are elementwise multiplications
and sums. torch's matrix product would follow flags of the process (TF32, bfloat16), and is not faster here: every
number is read once either way.
"""

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from index_store.reader import IndexReader
from index_store.row_locations import is_among
from index_store.vectors.exact import FEW_ROWS, Floats, Ranked, Rows, best_first, cosines_of, exact_nearest, rounding
from index_store.vectors.storage import normalised
from retrieval.devices.memory import available_memory

MEMORY_SHARE = 0.25  # of the GPU's free memory when an encoder is first searched; candidates' tensors need it too
SCAN_BYTES = 16 << 20  # of float32 products at a time


class VectorIndex(Protocol):
    """Nearest neighbours over one encoder's vectors; safe in many threads."""

    @property
    def dim(self) -> int:
        """Entries of a vector."""
        ...

    def search(self, query: Floats, count: int, allowed: Rows | None = None) -> Ranked:
        """Return the rows nearest to ``query [dim]`` and their cosines, best first; ties by row, lowest first.

        Rows without a vector are never found. Only ``allowed`` rows are found, ascending; None: all.
        """
        ...

    def similarities(self, query: Floats, rows: NDArray[np.int64]) -> Floats:
        """Return the cosines of ``query [dim]`` with ``rows``, in their order."""
        ...

    def vectors(self, rows: NDArray[np.int64]) -> Floats:
        """Return the vectors of ``rows``, of norm 1, float32 ``[rows, dim]``; zeros for a row without one."""
        ...


def open_vector_index(reader: IndexReader, encoder: str, device: torch.device, rows: Rows | None = None) -> VectorIndex:
    """Return the vector index of one encoder: on a GPU with room for its vectors, else FAISS's.

    Args:
        reader: of the index.
        encoder: whose vectors.
        device: that may hold them.
        rows: that it finds, ascending, all of which have a vector; None: all. Rows are then numbered by their place
            in ``rows``, but keep their numbers in an IVF index.
    """
    count = len(reader) if rows is None else len(rows)
    needed = reader.vector_bytes(encoder) * count // max(1, len(reader))
    free = available_memory(device) if device.type == "cuda" else None  # asking loads psutil
    if belongs_on(device.type, needed, free):
        return GpuIndex(_numbered(reader, encoder, rows), count, device)
    return reader.vector_reader.index(encoder, rows)


def _numbered(
    reader: IndexReader, encoder: str, rows: Rows | None
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float16]]]:
    """Yield the numbers of rows and their stored vectors, part by part; with ``rows``, places among these."""
    if rows is None:
        for part in reader.vector_parts(encoder):
            yield np.searchsorted(reader.ids, part.ids), part.vectors
        return
    ids = reader.ids[rows]
    for part in reader.vector_parts(encoder, reader.vector_reader.segments_without(encoder, rows)):
        own = is_among(part.ids, ids)
        yield np.searchsorted(ids, part.ids[own]), part.vectors[own]


def belongs_on(kind: str, needed: int, free: int | None) -> bool:
    """Say whether ``needed`` bytes of vectors belong on a device of that kind with ``free`` bytes.

    On a CPU, FAISS scans float32 faster than torch scans float16, and an IVF index is faster still.
    """
    return kind == "cuda" and free is not None and needed <= MEMORY_SHARE * free


class GpuIndex:
    """Exact nearest neighbours over one encoder's vectors, kept on a torch device; safe in many threads."""

    def __init__(
        self, parts: Iterable[tuple[NDArray[np.int64], NDArray[np.float16]]], rows: int, device: torch.device
    ) -> None:
        """Upload the vectors part by part; the host never holds more than one part.

        Args:
            parts: rows, and their stored vectors float16 ``[len(rows), dim]``; each row once. A row in no part is
                never found.
            rows: number of rows of the index.
            device: where the vectors are kept, as float16.
        """
        self._vectors = torch.zeros(rows, 0, dtype=torch.float16, device=device)
        self._count = 0  # rows with a vector
        missing = torch.ones(rows, dtype=torch.bool, device=device)
        for part, stored in parts:
            if not self._vectors.shape[1]:
                self._vectors = torch.zeros(rows, stored.shape[1], dtype=torch.float16, device=device)
            numbers = torch.from_numpy(part).to(device)
            self._vectors[numbers] = torch.from_numpy(stored).to(device)
            missing[numbers] = False
            self._count += len(part)
        self._missing = missing if self._count < rows else None
        self._block = max(1, SCAN_BYTES // (4 * max(1, self.dim)))
        self._norms = torch.empty(rows, device=device)
        for start in range(0, rows, self._block):
            stop = start + self._block
            self._norms[start:stop] = torch.linalg.vector_norm(self._vectors[start:stop], dim=1, dtype=torch.float32)
        self._norms.clamp_min_(float(np.finfo(np.float32).tiny))

    def __len__(self) -> int:
        return len(self._vectors)

    @property
    def dim(self) -> int:
        """Entries of a vector."""
        return int(self._vectors.shape[1])

    def search(self, query: Floats, count: int, allowed: Rows | None = None) -> Ranked:
        """Return the rows nearest to ``query [dim]`` and their cosines, best first; ties by row, lowest first.

        Only ``allowed`` rows are found, ascending; None: all.
        """
        exactly, rows = partial(self.similarities, query), self._count
        if allowed is not None and len(allowed) <= FEW_ROWS:
            held = allowed if self._missing is None else allowed[~self._missing[self._numbers(allowed)].cpu().numpy()]
            return best_first(held, exactly(held), count)
        products = self._products(query)
        if allowed is not None:
            some = torch.full_like(products, -torch.inf)
            numbers = self._numbers(allowed)
            some[numbers] = products[numbers]
            products, rows = some, int(torch.isfinite(some).sum())
        return exact_nearest(partial(_largest, products), exactly, rows, count, rounding(query))

    def _numbers(self, rows: Rows) -> Tensor:
        return torch.from_numpy(rows).to(self._vectors.device)

    def similarities(self, query: Floats, rows: NDArray[np.int64]) -> Floats:
        """Return the cosines of ``query [dim]`` with ``rows``, in their order; 0 for one without a vector."""
        return cosines_of(self.vectors, rows, query)

    def vectors(self, rows: NDArray[np.int64]) -> Floats:
        """Return the vectors of ``rows``, of norm 1, float32 ``[rows, dim]``; zeros for a row without one."""
        stored: NDArray[np.float16] = self._vectors[torch.from_numpy(rows).to(self._vectors.device)].cpu().numpy()
        return normalised(stored)

    def _products(self, query: Floats) -> Tensor:
        """Return the cosines of ``query [dim]`` with all rows, rounded by the device, float32 ``[rows]``.

        Rows without a vector get -inf, so that they come last.
        """
        asked = torch.tensor(query, device=self._vectors.device)
        products = torch.empty_like(self._norms)
        for start in range(0, len(self), self._block):
            stop = start + self._block
            # float16 times float32 is float32, without a copy of the vectors in between.
            torch.sum(self._vectors[start:stop] * asked, dim=1, out=products[start:stop])
        products.div_(self._norms)
        return products if self._missing is None else products.masked_fill_(self._missing, -torch.inf)


def _largest(products: Tensor, count: int) -> Ranked:
    values, rows = torch.topk(products, count, sorted=False)
    return rows.cpu().numpy(), values.cpu().numpy()
