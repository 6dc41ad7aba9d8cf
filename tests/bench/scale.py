"""`python -m tests.bench.scale [--items 1000,10000,100000]`: open, search and maintain indexes of random vectors.

Items have vectors and no tensors. One process writes and trains an index; another opens it, so that its memory is the
reader's alone; a third adds a segment, verifies and compacts. Prints a JSON object for each size, then their slopes.
"""

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from index_store.layout import Layout
from index_store.reader import IndexReader
from index_store.vectors.flat import import_faiss
from index_store.vectors.ivf import read_record
from index_store.vectors.storage import normalised, read_vectors
from index_store.vectors.training import train_where_due
from retrieval.indexing.upkeep.compacting import compact
from retrieval.indexing.upkeep.repairing import verify
from tests.bench.timing import Figures, cost, peak_memory, slope
from tests.support.synthetic_index import EMPTY, ENCODER, add_segments

DIM = 256
QUERIES = 50
COUNT = 200
T = TypeVar("T")


def write(root: Path, items: int, segment_rows: int, structured: bool) -> float:
    """Write and train an index; return the seconds of training."""
    rows = [segment_rows] * (items // segment_rows)
    add_segments(root, rows, DIM, generation=EMPTY, structured=structured)
    start = time.perf_counter()
    train_where_due(IndexReader(root).vector_reader)
    return time.perf_counter() - start


def measure(root: Path) -> dict[str, float]:
    """Open the index as a search does, search it, and compare with exact search; figures by name."""
    before = peak_memory()
    start = time.perf_counter()
    reader = IndexReader(root)
    catalogue = time.perf_counter() - start
    index = reader.coarse_index(ENCODER)
    opened = time.perf_counter() - start
    segments = reader.generation.segments[:: max(1, len(reader.generation.segments) // QUERIES)][:QUERIES]
    firsts = [read_vectors(reader.layout.vectors(s.name, ENCODER), s.rows)[0] for s in segments]
    queries = np.stack(firsts).astype(np.float32)
    queries += 0.02 * np.random.default_rng(1).standard_normal(
        queries.shape, dtype=np.float32
    )  # near items, not on them
    queries = normalised(queries)
    index.search(queries[0], COUNT)
    times, found = [], []
    for query in queries:
        start = time.perf_counter()
        found.append(index.search(query, COUNT)[0])
        times.append(1e3 * (time.perf_counter() - start))
    peak = peak_memory()
    exact = _exact(reader, queries)
    recall = np.mean([len(np.intersect1d(a, b)) / COUNT for a, b in zip(found, exact, strict=True)])
    record = read_record(Layout(root), ENCODER)
    return {
        "items": len(reader),
        "segments": len(reader.generation.segments),
        "catalogue_s": catalogue,
        "open_s": opened,
        "search_ms": statistics.median(times),
        "recall_at_200": float(recall),
        "probes": record.probes if record else 0,
        "lists": record.lists if record else 0,
        "memory_mb": (peak - before) / 1e6,
        "vectors_mb": 2 * DIM * len(reader) / 1e6,
    }


def maintain(root: Path, segment_rows: int) -> Figures:
    """Add a segment, read everything back, and merge all segments; seconds, also of the processor, and bytes."""
    generation = IndexReader(root).generation
    figures, _ = cost("add", lambda: add_segments(root, [segment_rows], DIM, seed=1, generation=generation))
    for name, work in (("verify", lambda: list(verify(root))), ("compact", lambda: compact(root, now=True))):
        figures |= cost(name, work)[0]
        figures[f"{name}_peak"] = peak_memory()
    return figures


def _exact(reader: IndexReader, queries: np.ndarray) -> list[np.ndarray]:
    vectors = reader.stored_vectors(ENCODER)
    blocks = range(0, len(vectors), 50_000)
    scores = np.concatenate([vectors[at : at + 50_000].astype(np.float32) @ queries.T for at in blocks])
    return [np.argpartition(-column, COUNT)[:COUNT] for column in scores.T]


def run_apart(function: Callable[..., T], *arguments: object) -> T:
    """Call ``function`` in a new process that computes on one thread, and return its result."""
    with multiprocessing.get_context("spawn").Pool(1, _one_thread) as pool:
        return pool.apply(function, arguments)


def _one_thread() -> None:
    torch.set_num_threads(1)
    import_faiss().omp_set_num_threads(1)


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    sizes: dict[str, Any] = {"type": lambda text: [int(each) for each in text.split(",")], "default": [1_000_000]}
    parser.add_argument("--items", **sizes)
    parser.add_argument("--segment-rows", type=int, default=1000)
    parser.add_argument("--noise", action="store_true", help="vectors without any structure")
    asked = parser.parse_args()
    found = []
    for items in asked.items:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder) / "random.diffsim"
            training = run_apart(write, root, items, asked.segment_rows, not asked.noise)
            found.append({"training_s": training, **run_apart(measure, root)})
            found[-1] |= run_apart(maintain, root, asked.segment_rows)
        print(json.dumps(found[-1]), flush=True)
    for name in found[-1]:
        print(f"{name}: {slope(found, asked.items, name)}")


if __name__ == "__main__":
    main()
