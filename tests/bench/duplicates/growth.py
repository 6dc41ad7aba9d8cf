"""`python -m tests.bench.duplicates.growth [--most 100000]`: seconds of CPU to find near pairs, by images in an index.

Indexes hold vectors alone, drawn around centres as those of photographs are. Above 20,000 images they have an IVF
index, as a build makes it; its training is timed apart.
"""

import argparse
import math
import tempfile
import time
from pathlib import Path

import torch

from index_store.reader import IndexReader
from index_store.vectors.flat import import_faiss
from index_store.vectors.training import train_where_due
from retrieval.grouping.neighbours import near_pairs
from retrieval.progress import ignore_progress
from retrieval.settings import DuplicateSettings
from tests.support.synthetic_index import EMPTY, ENCODER, add_segments

DIM = 320  # of mini-instance
SEGMENT = 1000


def measure(root: Path, items: int) -> tuple[float, float, int]:
    """Return the seconds of CPU for training and for the pairs of one encoder, and how many pairs there are."""
    add_segments(root, [SEGMENT] * (items // SEGMENT), DIM, generation=EMPTY, structured=True)
    start = time.process_time()
    train_where_due(IndexReader(root).vector_reader)
    trained = time.process_time() - start
    start = time.process_time()
    pairs = near_pairs(IndexReader(root), [ENCODER], DuplicateSettings().neighbours, ignore_progress)
    return trained, time.process_time() - start, len(pairs)


def main() -> None:
    """Print a row for each size, and the exponent between two of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--most", type=int, default=100_000)
    most = parser.parse_args().most
    torch.set_num_threads(1)
    import_faiss().omp_set_num_threads(1)
    before: tuple[int, float] | None = None
    for items in [size for size in (1_000, 10_000, 30_000, 100_000, 300_000) if size <= most]:
        with tempfile.TemporaryDirectory() as scratch:
            trained, spent, pairs = measure(Path(scratch) / "index", items)
        grown = "" if before is None else f"{math.log(spent / before[1]) / math.log(items / before[0]):.2f}"
        print(f"| {items} | {spent:.2f} s | {trained:.1f} s | {pairs} | {grown} |", flush=True)
        before = items, spent


if __name__ == "__main__":
    main()
