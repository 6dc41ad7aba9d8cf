"""Divide an index into clusters of one mode by HDBSCAN over the graph of nearest neighbours.

HDBSCAN (Campello, Moulavi and Sander, 2013) finds clusters of any shape and density, and leaves images of none as
noise. scikit-learn computes it. The graph has a few edges for each image, so no table of all pairs is ever made.
"""

from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index_store.reader import IndexReader
from index_store.remote.mirror import index_name
from index_store.remote.pull import existing_root
from retrieval.encoding.coarse_encoders import encoders_of_mode
from retrieval.encoding.recipe import Recipe, stored_recipe
from retrieval.encoding.timing import SharedTiming
from retrieval.errors import DependencyError, UsageError
from retrieval.grouping.cluster_results import Cluster, ClusterMember, Clusters
from retrieval.grouping.graph import Graph, neighbour_graph
from retrieval.grouping.neighbours import typical_cosine
from retrieval.grouping.scores import PairScores, rounded
from retrieval.models.registry import describe_extractor
from retrieval.progress import Cancellation, OnProgress, Progress, ignore_progress
from retrieval.search.results import Note
from retrieval.settings import ClusterSettings

MIN_SAMPLES = 2  # neighbours that say how dense the place of an image is
FAR = 2.0  # times the longest edge: the length of edges that join the parts of a graph, which HDBSCAN needs whole


def find_clusters(
    index: str | Path | IndexReader,
    settings: ClusterSettings | None = None,
    on_progress: OnProgress = ignore_progress,
    cancel: Cancellation | None = None,
) -> Clusters:
    """Divide the images of an index into clusters of one mode; the same index gives the same clusters.

    Args:
        index: a folder, an ``s3://`` URL, or an opened index.
        settings: the mode, the size of the smallest cluster, and the edges of the graph.
        on_progress: hears of the stages "neighbours", "edges" and "medoids".
        cancel: ends the work between some images and others.

    Raises:
        UsageError: the index has no vectors, or an unknown mode.
        DependencyError: scikit-learn is missing.
        IndexNotFoundError, IndexCorruptError, IndexIncompatibleError: see :mod:`index_store.errors`.
        CancelledError: ``cancel`` was requested.
    """
    reader = index if isinstance(index, IndexReader) else IndexReader(existing_root(index))
    return _Divider(reader, settings or ClusterSettings(), on_progress, cancel).divide()


class _Divider:
    """One division of one opened index."""

    def __init__(
        self, reader: IndexReader, settings: ClusterSettings, on_progress: OnProgress, cancel: Cancellation | None
    ) -> None:
        self._reader, self._settings, self._tell, self._cancel = reader, settings, on_progress, cancel
        recipe = stored_recipe(reader, reader.layout.root)
        self._mode = settings.mode or next(iter(recipe.targets))
        if self._mode not in recipe.targets:
            raise UsageError(f"unknown mode '{self._mode}'; modes of this index: {', '.join(recipe.targets)}")
        self._encoders = _encoders_of(reader, recipe, self._mode)
        is_scored = settings.rerank and bool(reader.has_tensors(self._mode).any())
        self._scores = PairScores(reader, recipe, self._mode) if is_scored else None
        self._timing = SharedTiming(1)

    def divide(self) -> Clusters:
        """Return the clusters."""
        reader, settings = self._reader, self._settings
        hdbscan = _import_hdbscan()
        with self._timing.of("graph"):
            graph = neighbour_graph(reader, self._encoders, self._scores, settings.neighbours, self._tell, self._cancel)
        with self._timing.of("hdbscan"):
            labels, firmness = _divided(hdbscan, graph, len(reader), settings.min_size)
        with self._timing.of("medoids"):
            rows = [np.flatnonzero(labels == label) for label in range(int(labels.max(initial=-1)) + 1)]
            rows.sort(key=lambda each: (-len(each), int(each[0])))
            middles = self._middles(rows)
            others = [own[own != middle] for own, middle in zip(rows, middles, strict=True)]
            clusters = []
            for number, near in enumerate(self._near(middles, others)):
                clusters.append(self._cluster(number, middles[number], others[number], *near, firmness))
                self._tell(Progress("medoids", number + 1, len(rows)))
        noise = self._members(np.flatnonzero(labels < 0), firmness)
        name = index_name(reader.layout.root)
        found, notes = tuple(clusters), self._notes()
        return Clusters(name, len(reader), self._mode, graph.is_exact, found, noise, notes, self._timing.seconds)

    def _middles(self, clusters: Sequence[NDArray[np.int64]]) -> list[int]:
        """Return the row of each cluster whose vectors lie nearest to the mean of all its vectors."""
        found = [np.zeros(len(rows)) for rows in clusters]
        for encoder in self._encoders:
            vectors = self._reader.vectors(encoder)
            for rows, sums in zip(clusters, found, strict=True):
                mean = vectors[rows].mean(axis=0, dtype=np.float64)
                sums += vectors[rows].astype(np.float64) @ mean / max(float(np.linalg.norm(mean)), 1e-12)
        return [int(rows[np.round(sums, 9).argmax()]) for rows, sums in zip(clusters, found, strict=True)]

    def _near(
        self, middles: Sequence[int], others: Sequence[NDArray[np.int64]]
    ) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """Yield the exact scores of each medoid with its ``others``, NaN without tensors, and their closeness to it."""
        if self._scores is None:
            yield from ((np.full(len(close), np.nan), close) for close in self._near_vectors(middles, others))
            return
        for middle, rows in zip(middles, others, strict=True):
            self._check()
            scores = self._scores.of(middle, rows.tolist())
            yield scores.astype(np.float64), self._scores.closeness(scores).astype(np.float64)

    def _near_vectors(self, middles: Sequence[int], others: Sequence[NDArray[np.int64]]) -> list[NDArray[np.float64]]:
        """Return by medoid how close the vectors of its ``others`` are to its own; each encoder is read once."""
        found = [np.zeros(len(rows)) for rows in others]
        for encoder in self._encoders:
            self._check()
            vectors, held = self._reader.vectors(encoder), np.flatnonzero(self._reader.has_vector(encoder))
            typical = typical_cosine(vectors.__getitem__, held)
            for middle, rows, close in zip(middles, others, found, strict=True):
                close += (vectors[rows].astype(np.float64) @ vectors[middle] - typical) / (1 - typical)
        return [close / len(self._encoders) for close in found]

    def _check(self) -> None:
        if self._cancel is not None:
            self._cancel.check()

    def _cluster(
        self,
        number: int,
        middle: int,
        others: NDArray[np.int64],
        scores: NDArray[np.float64],
        close: NDArray[np.float64],
        firmness: NDArray[np.float64],
    ) -> Cluster:
        order = np.lexsort((others, -np.round(close, 6), -np.round(firmness[others], 6)))
        members = self._members(np.concatenate([[middle], others[order]]), firmness, [None, *rounded(scores[order])])
        return Cluster(number, round(float(np.nanmean(close)), 6), members)

    def _members(
        self, rows: NDArray[np.int64], firmness: NDArray[np.float64], scores: Sequence[float | None] = ()
    ) -> tuple[ClusterMember, ...]:
        paths, ids = self._reader.uris(rows), self._reader.ids[rows].tolist()
        return tuple(
            ClusterMember(number, path, round(firm, 6), score)
            for number, path, firm, score in zip(
                ids, paths, firmness[rows].tolist(), scores or [None] * len(rows), strict=True
            )
        )

    def _notes(self) -> tuple[Note, ...]:
        if self._scores is None and self._settings.rerank:
            message = f"the index stores no {self._mode} tensors, so vectors alone decide"
            return (Note("no_tensors", message, advice="fill-beforehand"),)
        return ()


def _encoders_of(reader: IndexReader, recipe: Recipe, mode: str) -> tuple[str, ...]:
    """Return the encoders that find a mode's candidates in a search, of those that the index has vectors of."""
    found = encoders_of_mode(reader, describe_extractor(recipe.settings.model).modes, mode)
    if not found and len(reader):
        raise UsageError(f"{reader.layout.root} has no vectors to compare: it was built without encoders")
    return found


def _import_hdbscan() -> Any:
    try:
        return import_module("sklearn.cluster").HDBSCAN
    except ImportError as error:
        raise DependencyError(
            "clusters need the package scikit-learn, which can't be imported",
            advice="install-package",
            package="scikit-learn",
        ) from error


def _divided(hdbscan: Any, graph: Graph, rows: int, min_size: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return each row's label, -1 for noise, and how firmly it belongs; rows of fewer than two edges are noise."""
    labels, firmness, graph = np.full(rows, -1), np.zeros(rows), _dense_part(graph, rows)
    joined = np.union1d(graph.first, graph.second)
    if len(joined) < max(min_size, MIN_SAMPLES + 1):
        return labels, firmness
    found = hdbscan(
        min_cluster_size=min_size,
        min_samples=MIN_SAMPLES,
        metric="precomputed",
        algorithm="brute",
        cluster_selection_method="leaf",
        copy=True,
    ).fit(_matrix(graph, joined))
    labels[joined], firmness[joined] = found.labels_, found.probabilities_
    return labels, firmness


def _dense_part(graph: Graph, rows: int) -> Graph:
    """Return the edges among rows that all have :data:`MIN_SAMPLES` of these edges or more."""
    while True:
        edges = np.bincount(np.concatenate([graph.first, graph.second]), minlength=rows)
        kept = (edges[graph.first] >= MIN_SAMPLES) & (edges[graph.second] >= MIN_SAMPLES)
        if kept.all():
            return graph
        graph = Graph(graph.first[kept], graph.second[kept], graph.scores[kept], graph.is_exact)


def _matrix(graph: Graph, joined: NDArray[np.int64]) -> Any:
    """Return the distances as a symmetric sparse matrix ``[joined, joined]`` of one connected graph."""
    sparse = import_module("scipy.sparse")
    first, second = np.searchsorted(joined, graph.first), np.searchsorted(joined, graph.second)
    shape = (len(joined), len(joined))
    half = sparse.coo_matrix((graph.distances, (first, second)), shape)
    parts, part = sparse.csgraph.connected_components(half, directed=False)
    _, heads = np.unique(part, return_index=True)
    far = FAR * float(graph.distances.max())
    bridges = sparse.coo_matrix((np.full(parts - 1, far), (heads[:-1], heads[1:])), shape)
    one_way = half.tocsr() + bridges.tocsr()
    return (one_way + one_way.T).tocsr()
