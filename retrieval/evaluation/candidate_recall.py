"""Recall of candidate generation: how many of the exact top k are among N candidates."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retrieval.errors import UsageError
from retrieval.evaluation.runner import Run
from retrieval.images.decoding import read_image
from retrieval.images.discovery import find_images
from retrieval.models.protocols import Embedder
from retrieval.progress import Cancellation, OnProgress, Progress, ignore_progress
from retrieval.search.engine import Engine
from retrieval.text import counted


@dataclass(frozen=True)
class Recall:
    """The recall of the exact ``k`` nearest images at one number of candidates."""

    of: str  # the mode of an index, or the metric
    k: int
    candidates: int
    recall: float  # mean share of the k nearest that are candidates, 0 to 1
    whole: float  # share of queries whose k nearest are all candidates, 0 to 1
    queries: int


def coarse_recall(
    folder: Path, name: str, encoder: Embedder, candidates: Sequence[int], run: Run, k: int = 10
) -> list[Recall]:
    """Rank every image against all others by the metric ``name`` and by ``encoder``.

    Returns:
        The recall for each number of ``candidates``, where the encoder chooses the candidates.

    Raises:
        UsageError: fewer than three images, or not more than ``k``.
        CancelledError: the run was asked to stop.
    """
    items = list(find_images([folder]).files)
    _check_images(folder, len(items), k)
    store, listen = run.store(name), run.listener("coarse recall", name)
    for role in ("query", "gallery"):
        store.encode(items, role, listen)
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
        listen(Progress("queries", row + 1, len(items)))
    return _recalls(name, k, shares)


def index_recall(
    engine: Engine,
    candidates: Sequence[int],
    k: int = 10,
    queries: int = 200,
    seed: int = 0,
    on_progress: OnProgress = ignore_progress,
    cancel: Cancellation | None = None,
) -> list[Recall]:
    """Search an index for its own images, exhaustively and by its encoders alone, in every mode.

    Copies of a query are left out of its results. A query counts only if the index holds other images than its copies.

    Returns:
        The recall for each mode and each number of ``candidates``, over ``queries`` images drawn with ``seed``.

    Raises:
        UsageError: fewer than three images, not more than ``k``, only copies of one image, or no encoders.
        CancelledError: the work was asked to stop.
    """
    paths = engine.paths()
    _check_images("the index", len(paths), k)
    drawn = sorted(random.Random(seed).sample(paths, min(queries, len(paths))))
    found = []
    for mode in engine.modes:
        if cancel is not None:
            cancel.check()
        shares: dict[int, list[float]] = {count: [] for count in candidates}
        exhaustive = engine.search_many(drawn, mode, exhaustive=True, k=k, exclude_copies=True)
        by_vectors = engine.search_many(drawn, mode, rerank=False, k=max(candidates), exclude_copies=True)
        for number, ((_, all_scored), (_, ranked)) in enumerate(zip(exhaustive, by_vectors, strict=True)):
            exact, near = {r.id for r in all_scored}, [r.id for r in ranked]
            for count in candidates if exact else ():
                shares[count].append(len(exact & set(near[:count])) / len(exact))
            on_progress(Progress("queries", number + 1, len(drawn), note=f"coarse recall: {mode}"))
        if not all(shares.values()):
            raise UsageError("the index holds nothing but copies of one image: recall needs other images to find")
        found += _recalls(mode, k, shares)
    return found


def _check_images(source: object, images: int, k: int) -> None:
    if images < 3:
        raise UsageError(f"{source} holds {counted(images, 'image')}: recall needs three or more")
    if not 1 <= k < images:
        raise UsageError(f"k is {k}, but {source} holds {images} images, so each has 1 to {images - 1} neighbours")


def _recalls(of: str, k: int, shares: Mapping[int, Sequence[float]]) -> list[Recall]:
    """Return the recall for each number of candidates, from each query's share of its exact ``k`` nearest."""
    return [
        Recall(of, k, count, float(np.mean(values)), float(np.mean([share == 1 for share in values])), len(values))
        for count, values in shares.items()
    ]
