"""Libraries of approximate nearest neighbours behind one interface, each by its documented settings.

Vectors have norm 1 and lie as float16 in a file of numpy. A peer is built and kept on disk by one process; another one
opens it, so that its memory is that of searching.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
BLOCK = 65_536


class CoarsePeer(Protocol):
    """One library. ``knobs`` are rising efforts of a search; the first that reaches the wanted recall is used."""

    settings: str
    knobs: Sequence[int]

    def build(self, vectors: NDArray[np.float16], folder: Path, threads: int) -> None:
        """Index all vectors and keep them in ``folder``."""

    def open(self, folder: Path, threads: int) -> None:
        """Open what was built."""

    def search(self, queries: Floats, count: int, knob: int) -> NDArray[np.int64]:
        """Return the numbers of near vectors, best first, ``[queries, count]``."""

    def add(self, vectors: NDArray[np.float16], first: int) -> None:
        """Make further vectors searchable; their numbers begin with ``first``."""


def blocks(vectors: NDArray[np.float16]) -> list[tuple[int, Floats]]:
    """Return the vectors as float32, a block at a time, each with its first number."""
    return ((at, vectors[at : at + BLOCK].astype(np.float32)) for at in range(0, len(vectors), BLOCK))  # type: ignore[return-value]


class Ours:
    """An index of this project with vectors alone: IVF of 8-bit numbers, and a scan of newer rows."""

    settings = "IVF of 8-bit numbers, as `build` trains and probes it, then exact cosines of the stored float16"
    knobs = (0,)
    rows_a_segment = 1024  # as builds commit them

    def build(self, vectors: NDArray[np.float16], folder: Path, threads: int) -> None:
        from index_store.reader import IndexReader
        from index_store.vectors.training import train_where_due

        _faiss(threads)
        self._write(folder, vectors, self.rows_a_segment)
        train_where_due(IndexReader(folder).vector_reader)

    def open(self, folder: Path, threads: int) -> None:
        from index_store.reader import IndexReader
        from tests.support.synthetic_index import ENCODER

        _faiss(1 if threads == 1 else threads)
        self._folder, self._threads = folder, threads
        self._reader = IndexReader(folder, known=getattr(self, "_reader", None))  # as a server that meets new rows
        self._index = self._reader.coarse_index(ENCODER)

    def search(self, queries: Floats, count: int, knob: int) -> NDArray[np.int64]:
        if len(queries) == 1 or self._threads == 1:
            return np.stack([self._index.search(query, count)[0] for query in queries])
        with ThreadPoolExecutor(self._threads, initializer=_faiss, initargs=(1,)) as pool:
            return np.stack([found for found, _ in pool.map(self._index.search, queries, repeat(count))])

    def add(self, vectors: NDArray[np.float16], first: int) -> None:
        self._write(self._folder, vectors, len(vectors))
        self.open(self._folder, self._threads)

    def _write(self, folder: Path, vectors: NDArray[np.float16], rows_a_segment: int) -> None:
        from index_store.layout import Layout
        from index_store.reader import IndexReader
        from tests.support.synthetic_index import EMPTY, add_vectors

        generation = IndexReader(folder).generation if Layout(folder).current.exists() else EMPTY
        parts = [vectors[at : at + rows_a_segment] for at in range(0, len(vectors), rows_a_segment)]
        add_vectors(folder, parts, generation)


class FaissPeer:
    """One kind of FAISS index."""

    def __init__(self, kind: str, knobs: Sequence[int], settings: str) -> None:
        self._kind, self.knobs, self.settings = kind, knobs, settings

    def build(self, vectors: NDArray[np.float16], folder: Path, threads: int) -> None:
        faiss = _faiss(threads)
        dim, lists = vectors.shape[1], 1 << round(float(np.log2(2 * np.sqrt(len(vectors)))))
        kind = self._kind.format(lists=lists)
        index = faiss.index_factory(dim, kind, faiss.METRIC_INNER_PRODUCT)
        if "HNSW" in kind:
            index.hnsw.efConstruction = 200
        index.train(vectors[:: max(1, len(vectors) // (64 * lists))].astype(np.float32))
        for _, block in blocks(vectors):
            index.add(block)
        folder.mkdir(parents=True)
        faiss.write_index(index, str(folder / "index"))

    def open(self, folder: Path, threads: int) -> None:
        self._faiss = _faiss(threads)
        self._index = self._faiss.read_index(str(folder / "index"))

    def search(self, queries: Floats, count: int, knob: int) -> NDArray[np.int64]:
        if "HNSW" in self._kind:
            options = self._faiss.SearchParametersHNSW(efSearch=knob)
        else:
            options = self._faiss.SearchParametersIVF(nprobe=knob)
        found: NDArray[np.int64] = self._index.search(queries, count, params=options)[1]
        return found

    def add(self, vectors: NDArray[np.float16], first: int) -> None:
        self._index.add(vectors.astype(np.float32))


class Hnswlib:
    """hnswlib, float32."""

    settings, knobs = "M 32, ef_construction 200", (200, 300, 400, 800)

    def build(self, vectors: NDArray[np.float16], folder: Path, threads: int) -> None:
        import hnswlib

        index = hnswlib.Index(space="ip", dim=vectors.shape[1])
        index.init_index(max_elements=len(vectors) * 102 // 100, M=32, ef_construction=200)
        for at, block in blocks(vectors):
            index.add_items(block, np.arange(at, at + len(block)), num_threads=threads)
        folder.mkdir(parents=True)
        index.save_index(str(folder / "index"))
        (folder / "dim").write_text(str(vectors.shape[1]))

    def open(self, folder: Path, threads: int) -> None:
        import hnswlib

        self._threads = threads
        self._index = hnswlib.Index(space="ip", dim=int((folder / "dim").read_text()))
        self._index.load_index(str(folder / "index"), max_elements=0)

    def search(self, queries: Floats, count: int, knob: int) -> NDArray[np.int64]:
        self._index.set_ef(knob)
        found: NDArray[np.int64] = self._index.knn_query(queries, k=count, num_threads=self._threads)[0]
        return found.astype(np.int64)

    def add(self, vectors: NDArray[np.float16], first: int) -> None:
        self._index.resize_index(first + len(vectors))
        ids = np.arange(first, first + len(vectors))
        self._index.add_items(vectors.astype(np.float32), ids, num_threads=self._threads)


class Usearch:
    """USearch, float16 or int8."""

    knobs = (200, 300, 400, 800)

    def __init__(self, kind: str) -> None:
        self._kind, self.settings = kind, f"{kind}, connectivity 32, expansion_add 200"

    def build(self, vectors: NDArray[np.float16], folder: Path, threads: int) -> None:
        from usearch.index import Index

        shape = {"ndim": vectors.shape[1], "connectivity": 32, "expansion_add": 200}
        index = Index(**shape, metric="cos" if self._kind == "i8" else "ip", dtype=self._kind)
        for at, block in blocks(vectors):
            index.add(np.arange(at, at + len(block)), block, threads=threads)
        folder.mkdir(parents=True)
        index.save(str(folder / "index"))

    def open(self, folder: Path, threads: int) -> None:
        from usearch.index import Index

        self._index, self._threads = Index.restore(str(folder / "index")), threads

    def search(self, queries: Floats, count: int, knob: int) -> NDArray[np.int64]:
        self._index.expansion_search = knob
        keys = self._index.search(queries, count, threads=self._threads).keys
        return np.asarray(keys).astype(np.int64).reshape(len(queries), -1)

    def add(self, vectors: NDArray[np.float16], first: int) -> None:
        ids = np.arange(first, first + len(vectors))
        self._index.add(ids, vectors.astype(np.float32), threads=self._threads)


class Lancedb:
    """LanceDB: one partition of HNSW over 8-bit numbers, re-scored from the stored vectors."""

    settings, knobs = "IVF_HNSW_SQ, m 20, ef_construction 300, refine_factor 2", (400, 800, 1600)

    def build(self, vectors: NDArray[np.float16], folder: Path, threads: int) -> None:
        import lancedb

        table = lancedb.connect(folder).create_table("vectors", data=self._batches(vectors, 0))
        options: dict[str, Any] = {"num_partitions": max(1, len(vectors) >> 20), "m": 20, "ef_construction": 300}
        table.create_index(metric="dot", vector_column_name="vector", index_type="IVF_HNSW_SQ", **options)

    def _batches(self, vectors: NDArray[np.float16], first: int) -> Any:
        import pyarrow as pa

        def table(at: int, block: NDArray[np.float16]) -> Any:
            values = pa.FixedSizeListArray.from_arrays(pa.array(block.ravel()), vectors.shape[1])
            return pa.table({"id": np.arange(first + at, first + at + len(block)), "vector": values})

        return pa.concat_tables(table(at, vectors[at : at + BLOCK]) for at in range(0, len(vectors), BLOCK))

    def open(self, folder: Path, threads: int) -> None:
        import lancedb

        self._table = lancedb.connect(folder).open_table("vectors")

    def search(self, queries: Floats, count: int, knob: int) -> NDArray[np.int64]:
        found = []
        for query in queries.astype(np.float16):
            asked = self._table.search(query).limit(count).nprobes(20).ef(knob).refine_factor(2)
            found.append(asked.select(["id", "_distance"]).to_arrow()["id"].to_numpy()[:count])
        return np.stack(found)

    def add(self, vectors: NDArray[np.float16], first: int) -> None:
        self._table.add(self._batches(vectors, first))


class Qdrant:
    """The embedded client of Qdrant, which scans; its authors mean it for tests."""

    settings, knobs = "embedded client, exact scan", (0,)

    def build(self, vectors: NDArray[np.float16], folder: Path, threads: int) -> None:
        from qdrant_client import QdrantClient, models

        client = QdrantClient(path=str(folder))
        how = models.VectorParams(size=vectors.shape[1], distance=models.Distance.DOT)
        client.create_collection("vectors", vectors_config=how)
        for at, block in blocks(vectors):
            client.upload_collection("vectors", block, ids=range(at, at + len(block)), batch_size=1024)
        client.close()

    def open(self, folder: Path, threads: int) -> None:
        from qdrant_client import QdrantClient

        self._client = QdrantClient(path=str(folder))

    def search(self, queries: Floats, count: int, knob: int) -> NDArray[np.int64]:
        each = (self._client.query_points("vectors", query.tolist(), limit=count).points for query in queries)
        return np.array([[point.id for point in points] for points in each], np.int64)

    def add(self, vectors: NDArray[np.float16], first: int) -> None:
        ids = range(first, first + len(vectors))
        self._client.upload_collection("vectors", vectors.astype(np.float32), ids=ids, batch_size=1024)


def _faiss(threads: int) -> Any:
    import faiss

    faiss.omp_set_num_threads(threads)
    return faiss


def coarse_peer(name: str) -> CoarsePeer:
    """Return the peer ``name``; a KeyError names an unknown one."""
    return {**PEERS}[name]()


PEERS: dict[str, Any] = {
    "ours": Ours,
    "faiss-ivf-sq8": lambda: FaissPeer(
        "IVF{lists},SQ8", (3, 4, 6, 8, 12, 16, 32, 64, 128, 256, 512), "twice the root of the rows as lists"
    ),
    "faiss-hnsw": lambda: FaissPeer("HNSW32", (200, 300, 400, 800), "M 32, efConstruction 200, float32"),
    "hnswlib": Hnswlib,
    "usearch-f16": lambda: Usearch("f16"),
    "usearch-i8": lambda: Usearch("i8"),
    "lancedb": Lancedb,
    "qdrant": Qdrant,
}
PACKAGE_OF = {
    "faiss-ivf-sq8": "faiss-cpu",
    "faiss-hnsw": "faiss-cpu",
    "usearch-f16": "usearch",
    "usearch-i8": "usearch",
    "qdrant": "qdrant-client",
    "ours": "faiss-cpu",
}
