"""What a similarity matrix is worth, leave-one-out: mean average precision, top-1, triplets. All in percent."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TRIPLETS = 2000
TRIPLET_SEED = 2333

Matrix = NDArray[np.float64]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Measures:
    """Percentages; the queries are the images whose group has another image."""

    mean_average_precision: float
    top1: float
    triplets: float


def measure(similarity: Matrix, labels: Labels) -> Measures:
    """Measure ``similarity [n, n]`` (row = query, higher is closer) against the groups ``labels [n]``."""
    n = len(labels)
    ranked = similarity.astype(np.float64).copy()
    np.fill_diagonal(ranked, -np.inf)
    order = np.argsort(-ranked, axis=1, kind="stable")[:, : n - 1]
    hits = labels[order] == labels[:, None]
    hits = hits[hits.any(axis=1)]
    precision = hits.cumsum(axis=1) / np.arange(1, n)
    average = (precision * hits).sum(axis=1) / hits.sum(axis=1)
    chosen = draw_triplets(labels)
    return Measures(100 * float(average.mean()), 100 * float(hits[:, 0].mean()), triplet_accuracy(similarity, chosen))


def draw_triplets(labels: Labels, count: int = TRIPLETS, seed: int = TRIPLET_SEED) -> Labels:
    """Draw ``[count, 3]``: a query, another image of its group, an image of another group."""
    rng = np.random.default_rng(seed)
    same = labels[:, None] == labels
    np.fill_diagonal(same, False)
    queries = rng.choice(np.nonzero(same.any(axis=1))[0], count)
    rows = [
        (q, rng.choice(np.nonzero(same[q])[0]), rng.choice(np.nonzero(labels != labels[q])[0]))
        for q in queries.tolist()
    ]
    return np.array(rows, np.int64)


def triplet_accuracy(similarity: Matrix, triplets: Labels) -> float:
    """Return the share of triplets (query, nearer, farther) that are ordered rightly; ties count half."""
    nearer, farther = (similarity[triplets[:, 0], triplets[:, i]] for i in (1, 2))
    return 100 * float(np.mean((nearer > farther) + 0.5 * (nearer == farther)))
