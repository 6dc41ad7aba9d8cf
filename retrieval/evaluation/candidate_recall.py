"""How much of the exact ranking the coarse stage lets through: recall of the exact top k among N candidates."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retrieval.errors import UsageError
from retrieval.evaluation.runner import Run
from retrieval.images.decoding import read_image
from retrieval.images.discovery import find_images
from retrieval.models.protocols import Embedder
from retrieval.search.engine import Engine
from retrieval.text import counted


@dataclass(frozen=True)
class Recall:
    """How much of the exact ``k`` nearest is among so many candidates."""

    of: str  # a mode of an index, or a metric
    k: int
    candidates: int
    recall: float  # the mean share of the k nearest that are candidates, 0 to 1
    whole: float  # the share of queries all of whose k nearest are, 0 to 1
    queries: int


def coarse_recall(
    folder: Path, name: str, encoder: Embedder, candidates: Sequence[int], run: Run, k: int = 10
) -> list[Recall]:
    """Rank every image against all others by the metric ``name`` and by ``encoder``.

    Returns:
        For each number of candidates how many of the exact ``k`` nearest are among so many nearest by the encoder.

    Raises:
        UsageError: fewer than three images, or than ``k`` neighbours.
    """
    items = list(find_images([folder]).files)
    _check_images(folder, len(items), k)
    store = run.store(name)
    for role in ("query", "gallery"):
        store.encode(items, role, run.shown("coarse recall", name))
    gallery = store.get(items, "gallery")
    prepared = np.stack([encoder.prepare(read_image(path, run.rules)[0]) for path in items])
    vectors = np.concatenate([encoder.embed(prepared[at : at + 16]) for at in range(0, len(items), 16)])
    coarse = np.argsort(-(vectors @ vectors.T), axis=1, kind="stable")
    shares: dict[int, list[float]] = {count: [] for count in candidates}
    for row in range(len(items)):
        ranked = store.metric.rank(store.get([items[row]], "query"), gallery)
        exact = set(ranked[ranked != row][:k].tolist())
        nearby = coarse[row][coarse[row] != row].tolist()
        for count in candidates:
            shares[count].append(len(exact & set(nearby[:count])) / len(exact))
        run.progress("coarse recall: queries", row + 1, len(items))
    return _recalls(name, k, shares)


def index_recall(
    engine: Engine,
    candidates: Sequence[int],
    k: int = 10,
    queries: int = 200,
    seed: int = 0,
    progress: Callable[[str, int, int], None] = lambda task, done, total: None,
) -> list[Recall]:
    """Search an index for its own images, exhaustively and by its coarse stage alone, in every mode.

    Returns:
        For each mode and number of candidates how many of the exact ``k`` nearest (the query and its copies left out)
        are among the candidates, over ``queries`` items drawn by ``seed``. A query that the index holds nothing but
        copies of does not count.

    Raises:
        UsageError: fewer than three images, or than ``k`` neighbours; nothing but copies of one; no coarse stage.
    """
    paths = engine.paths()
    _check_images("the index", len(paths), k)
    drawn = sorted(random.Random(seed).sample(paths, min(queries, len(paths))))
    found = []
    for mode in engine.modes:
        shares: dict[int, list[float]] = {count: [] for count in candidates}
        exhaustive = engine.search_many(drawn, mode, exhaustive=True, k=k, exclude_query=True)
        by_vectors = engine.search_many(drawn, mode, rerank=False, k=max(candidates), exclude_query=True)
        for number, ((_, all_scored), (_, ranked)) in enumerate(zip(exhaustive, by_vectors, strict=True)):
            exact, near = {r.id for r in all_scored}, [r.id for r in ranked]
            for count in candidates if exact else ():
                shares[count].append(len(exact & set(near[:count])) / len(exact))
            progress(f"coarse recall: {mode}", number + 1, len(drawn))
        if not all(shares.values()):
            raise UsageError("the index holds nothing but copies of one image: recall needs others to be found")
        found += _recalls(mode, k, shares)
    return found


def _check_images(place: object, images: int, k: int) -> None:
    if images < 3:
        raise UsageError(f"{place} holds {counted(images, 'image')}: three or more are needed to measure recall")
    if not 1 <= k < images:
        raise UsageError(f"-k {k}: {place} holds {images} images, so each has 1 to {images - 1} neighbours")


def _recalls(of: str, k: int, shares: Mapping[int, Sequence[float]]) -> list[Recall]:
    """Return one of every number of candidates, from the queries' shares of the exact ``k`` nearest."""
    return [
        Recall(of, k, count, float(np.mean(values)), float(np.mean([share == 1 for share in values])), len(values))
        for count, values in shares.items()
    ]
