"""Read one generation of an index: the catalogue, the vectors and the tensors of its live items."""

from collections.abc import Container, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index_store.catalog import Catalog, Item, Reject
from index_store.catalog_files.sources import Sources
from index_store.generation import Generation, read_current
from index_store.layout import Layout
from index_store.row_locations import RowLocator
from index_store.tensors.reader import TensorReader
from index_store.vectors.exact import Floats
from index_store.vectors.flat import FlatIndex
from index_store.vectors.ivf_and_rest import IVFAndRestIndex
from index_store.vectors.reader import VectorPart, VectorReader


class IndexReader:
    """One generation, opened. It never changes, whatever writers do meanwhile; safe to use from many threads.

    Live items are numbered by ``row``, 0 to ``len(reader) - 1``, in the order of their ids. The work is done by three
    parts, which are public: the :attr:`catalog`, :attr:`vector_reader` and :attr:`tensor_reader`.
    """

    def __init__(self, root: Path, generation: Generation | None = None, known: "IndexReader | None" = None) -> None:
        """Open ``generation``, by default the current one.

        Args:
            root: the index's folder.
            generation: that is opened.
            known: a reader of another generation; what it has read of segments that both share is not read again.

        Raises:
            IndexCorruptError: a file is missing or damaged.
            IndexIncompatibleError: written by a newer version of this software.
        """
        self.layout = Layout(root)
        self.generation = generation or read_current(self.layout)
        self.catalog: Catalog = Catalog(self.layout, self.generation, known.catalog if known else None)
        locator = RowLocator(self.layout, self.generation, self.catalog.ids, self.catalog.own_locations)
        self.vector_reader = VectorReader(self.layout, self.generation, self.catalog.ids, locator)
        self.tensor_reader = TensorReader(self.layout, self.generation, self.catalog.ids, locator)

    def __len__(self) -> int:
        return len(self.catalog)

    @property
    def sources(self) -> Sources:
        """The sources of the index, as they are found on this machine."""
        return self.catalog.sources

    @property
    def ids(self) -> NDArray[np.int64]:
        """The live items' ids, ascending, int64 ``[len(self)]``."""
        return self.catalog.ids

    def items(self, rows: Sequence[int] | NDArray[np.int64] | None = None) -> list[Item]:
        """Return the items of ``rows``, in that order; without ``rows``, all of them."""
        return self.catalog.items(rows)

    def uris(self, rows: NDArray[np.int64] | None = None) -> list[str]:
        """Return the absolute paths of ``rows``, in that order; without ``rows``, all of them."""
        return self.catalog.uris(rows)

    def file_states(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return the items' file sizes in bytes, and times of modification and change in ns, int64 ``[len(self)]``."""
        return self.catalog.file_states()

    def export_items(self, path: Path) -> None:
        """Write the live items as one Parquet file."""
        self.catalog.export(path)

    def find(self, column: str, value: str | int) -> list[int]:
        """Return the rows whose ``column`` equals ``value``."""
        return self.catalog.find(column, value)

    def rejects(self) -> list[Reject]:
        """Return the newest reject of each path, except paths that were indexed since."""
        return self.catalog.rejects()

    def has_vector(self, encoder: str) -> NDArray[np.bool_]:
        """Say of every row whether its vector of ``encoder`` is stored, bool ``[len(self)]``."""
        return self.vector_reader.held(encoder)

    def vectors(self, encoder: str) -> Floats:
        """Return the vectors with norm 1, float32 ``[len(self), dim]``; a row without a vector is zeros."""
        return self.vector_reader.read(encoder)

    def stored_vectors(self, encoder: str) -> NDArray[np.float16]:
        """Return the vectors as they are on disk, float16 ``[len(self), dim]``; a row without a vector is zeros."""
        return self.vector_reader.stored(encoder)

    def vector_parts(self, encoder: str, without: Container[str] = ()) -> Iterator[VectorPart]:
        """Read the vectors segment after segment; see :meth:`index_store.vectors.reader.VectorReader.parts`."""
        return self.vector_reader.parts(encoder, without)

    def vector_bytes(self, encoder: str) -> int:
        """Estimate the bytes of float16 vectors for all live items from the files' sizes: a few too many at most."""
        return self.vector_reader.bytes(encoder)

    def coarse_index(self, encoder: str) -> FlatIndex | IVFAndRestIndex:
        """Return the nearest-neighbour index over one encoder: IVF if one was trained and is still valid, else flat."""
        return self.vector_reader.index(encoder)

    def has_tensors(self, mode: str) -> NDArray[np.bool_]:
        """Say of every row whether its tensors of ``mode`` are stored, bool ``[len(self)]``."""
        return self.tensor_reader.held(mode)

    def attention(self, mode: str, rows: Iterable[int]) -> dict[str, NDArray[Any]]:
        """Return the tensors of ``rows`` in that order, as stored; see :func:`index_store.tensors.attention.read_rows`.

        Raises:
            ValueError: a row has none; see :meth:`has_tensors`.
        """
        return self.tensor_reader.read(mode, rows)

    def row_bytes(self, mode: str) -> int:
        """Return the bytes of one row's tensors as stored; 0 if no item has any."""
        return self.tensor_reader.row_bytes(mode)

    def projection(self, mode: str) -> dict[str, NDArray[Any]]:
        """Return the weights that turn a mode's stored layer inputs into Q, K and V.

        Raises:
            IndexCorruptError: the file is missing or damaged, or a repair removed it.
        """
        return self.tensor_reader.projection(mode)

    @property
    def codec(self) -> str:
        """The name of the codec that the tensors are stored by."""
        return self.tensor_reader.codec
