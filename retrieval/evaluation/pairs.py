"""Just noticeable differences: pairs of images that people called the same or not, and a metric's average precision.

LPIPS and DreamSim report average precision for such votes, but their published code does not hold it, so the
definition is ours. Pairs are ordered from closest to farthest, and a pair called the same is a hit. Precision is
averaged over the recall that each distinct score adds. Equal scores form one step, so their order does not matter.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import UsageError
from retrieval.evaluation.feature_store import FeatureStore
from retrieval.evaluation.measures import Measurement
from retrieval.evaluation.triplets import read_csv
from retrieval.progress import OnProgress, Progress, ignore_progress

PAIRS = "pairs"
COLUMNS = ("first", "second", "same")


@dataclass(frozen=True)
class Pair:
    """Two images and whether people called them the same."""

    first: Path
    second: Path
    same: bool


def read_pairs(file: Path) -> list[Pair]:
    """Read a CSV with the columns first, second and same (0 or 1); paths relative to the file.

    Raises:
        UsageError: a missing column or image, a value other than 0 and 1, or pairs of one kind only.
    """
    found = []
    for line, row in read_csv(file, COLUMNS):
        if row["same"] not in {"0", "1"}:
            raise UsageError(f"{file}, line {line}: same is '{row['same']}', not 0 or 1")
        pair = Pair(file.parent / row["first"], file.parent / row["second"], row["same"] == "1")
        missing = [path for path in (pair.first, pair.second) if not path.is_file()]
        if missing:
            raise UsageError(f"{file}, line {line}: {missing[0]} does not exist")
        found.append(pair)
    if len({pair.same for pair in found}) < 2:
        raise UsageError(f"{file} has pairs of one kind only: it needs pairs that are the same and pairs that are not")
    return found


def average_precision(scores: NDArray[np.float64], same: NDArray[np.bool_]) -> float:
    """Return ``sum over distinct scores of (recall - recall before) * precision``, higher scores first.

    Args:
        scores: ``[pairs]``, higher is closer.
        same: ``[pairs]``, with at least one True.
    """
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(same[order])
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)  # the last pair of each score
    recall = hits[ends] / hits[-1]
    precision = hits[ends] / (ends + 1)
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def measure_pairs(
    name: str, store: FeatureStore, pairs: Sequence[Pair], on_progress: OnProgress = ignore_progress
) -> Measurement:
    """Score every pair with the first image as the query, and return the average precision."""
    store.encode(sorted({pair.first for pair in pairs}), "query", on_progress)
    store.encode(sorted({pair.second for pair in pairs}), "gallery", on_progress)
    sign = 1.0 if store.metric.higher_is_closer else -1.0
    scores = []
    for done, pair in enumerate(pairs, 1):
        one = store.metric.score(store.get([pair.first], "query"), store.get([pair.second], "gallery"))
        scores.append(sign * float(one[0]))
        on_progress(Progress("pairs", done, len(pairs)))
    value = average_precision(np.array(scores), np.array([pair.same for pair in pairs]))
    return Measurement(PAIRS, name, "average precision", value, len(pairs))
