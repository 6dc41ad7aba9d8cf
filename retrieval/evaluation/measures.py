"""Score triplets and galleries with a metric, and compute measures from the scores."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import DependencyError
from retrieval.evaluation.feature_store import FeatureStore
from retrieval.evaluation.triplets import ImageGroups, Triplet, images_of
from retrieval.progress import OnProgress, Progress, ignore_progress

BLOCK_BYTES = 1 << 30  # features scored at a time
Z95 = 1.959964  # two-sided 95 % quantile of the normal distribution


@dataclass(frozen=True)
class Measurement:
    """One number of one metric on one benchmark. Shares are 0 to 1, with a 95 % interval from ``low`` to ``high``."""

    bench: str
    metric: str
    measure: str
    value: float
    count: int  # the triplets, queries or videos that the mean is over
    part: str = ""
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class JudgedRanking:
    """A query's scores for all other images (higher is closer), and whether each shares the query's group."""

    query: Path
    items: tuple[Path, ...]
    scores: NDArray[np.float32]
    relevant: NDArray[np.bool_]


def decide(
    store: FeatureStore, triplets: Sequence[Triplet], on_progress: OnProgress = ignore_progress
) -> NDArray[np.float64]:
    """Return ``[triplets]``: 1 for each triplet that the metric gets right, 0 for the others, and 1/2 for ties."""
    queries, gallery = images_of(triplets)
    store.encode(queries, "query", on_progress)
    store.encode(gallery, "gallery", on_progress)
    margins = np.zeros(len(triplets))
    order = sorted(range(len(triplets)), key=lambda i: triplets[i].reference)
    done = 0
    for reference, rows in groupby(order, key=lambda i: triplets[i].reference):
        same = list(rows)
        margins[same] = _margins(store, reference, [triplets[i] for i in same])
        done += len(same)
        on_progress(Progress("triplets", done, len(triplets)))
    right: NDArray[np.float64] = (np.sign(margins) + 1) / 2
    return right


def _margins(store: FeatureStore, reference: Path, triplets: Sequence[Triplet]) -> NDArray[np.float64]:
    """Return how much closer the nearer image is than the farther one, in the metric's own unit: ``[triplets]``."""
    metric, query = store.metric, store.get([reference], "query")
    if metric.comparative:  # an ensemble votes between two images
        pairs = [metric.score(query, store.get([t.nearer, t.farther], "gallery")) for t in triplets]
        scores = {(i, j): float(pairs[i][j]) for i in range(len(pairs)) for j in (0, 1)}
        return np.array([scores[i, 0] - scores[i, 1] for i in range(len(pairs))])
    asked = sorted({path for triplet in triplets for path in (triplet.nearer, triplet.farther)})
    found = dict(zip(asked, metric.score(query, store.get(asked, "gallery")).tolist(), strict=True))
    sign = 1.0 if metric.higher_is_closer else -1.0
    return np.array([sign * (found[t.nearer] - found[t.farther]) for t in triplets])


def accuracy(bench: str, metric: str, triplets: Sequence[Triplet], right: NDArray[np.float64]) -> Iterator[Measurement]:
    """Yield the triplet accuracy over all triplets, then over each part if there are several."""
    parts = sorted({triplet.part for triplet in triplets})
    for part in ["", *(parts if len(parts) > 1 else [])]:
        chosen = right[[not part or triplet.part == part for triplet in triplets]]
        low, high = interval(float(chosen.mean()), len(chosen))
        yield Measurement(bench, metric, "triplet accuracy", float(chosen.mean()), len(chosen), part, low, high)


def interval(share: float, count: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval for a share of ``count`` independent trials.

    Drawn triplets share images, so their true uncertainty is larger.
    """
    middle = share + Z95**2 / (2 * count)
    spread = Z95 * ((share * (1 - share) + Z95**2 / (4 * count)) / count) ** 0.5
    scale = 1 + Z95**2 / count
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)


def rank_groups(
    store: FeatureStore, groups: ImageGroups, on_progress: OnProgress = ignore_progress
) -> Iterator[JudgedRanking]:
    """Yield a ranking of all other images for each image of a group of two or more (leave one out)."""
    member = {path: name for name, paths in groups.items() for path in paths}
    items = sorted(member)
    queries = [path for path in items if len(groups[member[path]]) > 1]
    store.encode(queries, "query", on_progress)
    store.encode(items, "gallery", on_progress)
    matrix = _score_all(store, queries, items, on_progress)
    names, paths = np.array([member[path] for path in items]), np.array([str(path) for path in items])
    for row, query in enumerate(queries):
        others = paths != str(query)
        yield JudgedRanking(
            query=query,
            items=tuple(path for path in items if path != query),
            scores=matrix[row, others],
            relevant=(names == member[query])[others],
        )


def _score_all(
    store: FeatureStore, queries: Sequence[Path], items: Sequence[Path], on_progress: OnProgress
) -> NDArray[np.float32]:
    """Return scores ``[queries, items]``, higher is closer; one block of the gallery is in memory at a time."""
    metric = store.metric
    sign = np.float32(1.0 if metric.higher_is_closer else -1.0)
    size = len(items) if metric.comparative else max(1, BLOCK_BYTES // store.bytes_of(items[0], "gallery"))
    matrix = np.empty((len(queries), len(items)), np.float32)
    blocks = range(0, len(items), size)
    for number, start in enumerate(blocks):
        block = store.get(items[start : start + size], "gallery")
        for row, query in enumerate(queries):
            matrix[row, start : start + size] = sign * metric.score(store.get([query], "query"), block)
            on_progress(Progress("queries", number * len(queries) + row + 1, len(blocks) * len(queries)))
    return matrix


MEASURES = {"Success@1": "recall@1", "Success@4": "recall@4", "P@4": "precision@4", "AP": "mAP"}
"""The names of ir-measures, and ours. Recall@k has the sense of image retrieval: is any of the k nearest right?"""


def retrieval_measures(bench: str, metric: str, rankings: Sequence[JudgedRanking]) -> list[Measurement]:
    """Return the means of :data:`MEASURES` over queries, computed by ir-measures.

    Ties are broken by name, as trec_eval does, so a metric gains nothing from equal scores.

    Raises:
        DependencyError: ir-measures is not installed.
    """
    try:
        import ir_measures
    except ImportError as error:
        raise DependencyError(
            "retrieval measures need the package ir-measures, which is not installed: "
            "pip install 'diffsim-retrieval[eval]'"
        ) from error
    wanted = [ir_measures.parse_measure(name) for name in MEASURES]
    totals = ir_measures.calc_aggregate(wanted, list(_qrels(rankings)), list(_run(rankings)))
    return [
        Measurement(bench, metric, MEASURES[str(measure)], float(totals[measure]), len(rankings)) for measure in wanted
    ]


def _run(rankings: Sequence[JudgedRanking]) -> Iterator[object]:
    import ir_measures

    for ranking in rankings:
        for path, score in zip(ranking.items, ranking.scores.tolist(), strict=True):
            yield ir_measures.ScoredDoc(str(ranking.query), str(path), score)


def _qrels(rankings: Sequence[JudgedRanking]) -> Iterator[object]:
    import ir_measures

    for ranking in rankings:
        for path, relevant in zip(ranking.items, ranking.relevant.tolist(), strict=True):
            if relevant:
                yield ir_measures.Qrel(str(ranking.query), str(path), 1)


def variances(
    bench: str, name: str, store: FeatureStore, videos: ImageGroups, on_progress: OnProgress = ignore_progress
) -> list[Measurement]:
    """Return the mean, over videos, of the variance of scores between frame 0 and the other frames (lower is better).

    Table 4 of the paper.
    """
    firsts = [paths[0] for paths in videos.values()]
    store.encode(firsts, "query", on_progress)
    store.encode([path for paths in videos.values() for path in paths[1:]], "gallery", on_progress)
    spreads = [
        float(np.var(store.metric.score(store.get(paths[:1], "query"), store.get(paths[1:], "gallery"))))
        for paths in videos.values()
    ]
    return [Measurement(bench, name, "variance", float(np.mean(spreads)), len(spreads))]
