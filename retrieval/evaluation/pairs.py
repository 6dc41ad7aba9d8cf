"""Just noticeable differences: pairs that people called the same or not, and how well a metric's order agrees.

Average precision as LPIPS and DreamSim report it for their JND votes; neither published code holds it, so this
definition is ours: pairs are ordered from closest to farthest, a pair called the same is a hit, and the precision is
averaged over the recall that each distinct score adds. Equal scores are one step, so their order does not matter.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import UsageError
from retrieval.evaluation.feature_store import FeatureStore, Progress, silent
from retrieval.evaluation.measures import Measurement
from retrieval.evaluation.triplets import read_csv

PAIRS = "pairs"
COLUMNS = ("first", "second", "same")


@dataclass(frozen=True)
class Pair:
    """Two images, and whether people called them the same."""

    first: Path
    second: Path
    same: bool


def read_pairs(file: Path) -> list[Pair]:
    """Read a CSV with the columns first, second and same (0 or 1); paths relative to the file.

    Raises:
        UsageError: a missing column or image, another word than 0 and 1, or pairs of one kind only.
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
        raise UsageError(f"{file} has pairs of one kind only: some that are the same and some that are not are needed")
    return found


def average_precision(scores: NDArray[np.float64], same: NDArray[np.bool_]) -> float:
    """Return ``sum over distinct scores of (recall - recall before) * precision``, higher scores first."""
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(same[order])
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)  # the last pair of each score
    recall = hits[ends] / hits[-1]
    precision = hits[ends] / (ends + 1)
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def measure_pairs(name: str, store: FeatureStore, pairs: Sequence[Pair], progress: Progress = silent) -> Measurement:
    """Score every pair, the first image as the query, and return the average precision."""
    store.encode(sorted({pair.first for pair in pairs}), "query", progress)
    store.encode(sorted({pair.second for pair in pairs}), "gallery", progress)
    sign = 1.0 if store.metric.higher_is_closer else -1.0
    scores = []
    for done, pair in enumerate(pairs, 1):
        one = store.metric.score(store.get([pair.first], "query"), store.get([pair.second], "gallery"))
        scores.append(sign * float(one[0]))
        progress("pairs", done, len(pairs))
    value = average_precision(np.array(scores), np.array([pair.same for pair in pairs]))
    return Measurement(PAIRS, name, "average precision", value, len(pairs))
