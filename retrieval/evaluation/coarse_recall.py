"""How much of the exact ranking the coarse stage lets through: recall of the exact top k among N candidates.

Two numbers each: the mean share of the exact top k that is among the candidates ("top-k recall"), and the share of
queries of which all of it is ("whole top-k").
"""

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from retrieval.backbones import Embedder
from retrieval.discovery import find_images
from retrieval.engine import Engine
from retrieval.errors import UsageError
from retrieval.evaluation.measure import Measurement
from retrieval.evaluation.run import Run
from retrieval.images import read_image


def coarse_recall(
    folder: Path, name: str, encoder: Embedder, candidates: Sequence[int], run: Run, k: int = 10
) -> list[Measurement]:
    """Rank every image against all others by the metric ``name`` and by ``encoder``.

    Returns:
        For each number of candidates the mean share of the exact ``k`` nearest that are among so many nearest by the
        encoder, and the share of images all of whose ``k`` nearest are.

    Raises:
        UsageError: fewer than three images.
    """
    items = list(find_images([folder]).files)
    if len(items) < 3:
        raise UsageError(f"{folder} holds {len(items)} images: three or more are needed to measure recall")
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
    return _measured(folder.resolve().name, name, k, shares)


def index_recall(
    engine: Engine,
    candidates: Sequence[int],
    k: int = 10,
    queries: int = 200,
    seed: int = 0,
    progress: Callable[[str, int, int], None] = lambda task, done, total: None,
) -> list[Measurement]:
    """Search an index for its own images, exhaustively and by its coarse stage alone, in every mode.

    Returns:
        For each mode and number of candidates the mean share of the exact ``k`` nearest (the query and its copies
        left out) that are among so many candidates, and the share of queries all of whose ``k`` nearest are, over
        ``queries`` items drawn by ``seed``. A query that the index holds nothing but copies of does not count.

    Raises:
        UsageError: fewer than three images, nothing but copies of one, or no coarse stage.
    """
    paths = engine.paths()
    if len(paths) < 3:
        raise UsageError(f"the index holds {len(paths)} images: three or more are needed to measure recall")
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
        found += _measured("index", mode, k, shares)
    return found


def _measured(bench: str, metric: str, k: int, shares: Mapping[int, Sequence[float]]) -> list[Measurement]:
    """Return both numbers of every number of candidates, from the queries' shares of the exact ``k`` nearest."""
    measures: tuple[tuple[str, Callable[[float], float]], ...] = (
        (f"top-{k} recall at", lambda share: share),
        (f"whole top-{k} at", lambda share: share == 1),
    )
    return [
        Measurement(bench, metric, f"{name} {count} candidates", float(np.mean([of(v) for v in values])), len(values))
        for name, of in measures
        for count, values in shares.items()
    ]
