"""`python -m tests.bench.cluster.ten_million FOLDER [--items 10000000] [--shards 4]`: many vectors, and many segments.

Vectors without tensors are written once; FOLDER keeps them for a second run. Each shard is an index of its own, opened
by a process of its own with one thread. A search asks all of them at once and merges what they answer. Then an index
of 10,000 small segments is opened and committed to. Prints one JSON object.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import time
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray

from index_store.catalog import Item
from index_store.commit import commit
from index_store.generation import Generation, read_current
from index_store.ids import new_segment_name
from index_store.layout import Layout
from index_store.reader import IndexReader
from index_store.segment_file import seal_segment
from index_store.segment_writer import SegmentWriter
from index_store.vectors.flat import import_faiss
from index_store.vectors.ivf import read_record
from index_store.vectors.storage import normalised
from index_store.vectors.training import train_where_due
from tests.bench.scale import run_apart
from tests.bench.timing import peak_memory
from tests.support.synthetic_index import EMPTY, ENCODER

DIM = 256
QUERIES = 100
COUNT = 200
SEGMENT_ROWS = 1000
CLUSTER = 1000  # images around one centre
MANY = 10_000  # segments
SMALL = 20  # images of each of them
BLOCK = 50_000
Found = tuple[NDArray[np.int64], NDArray[np.float32]]


def write(root: Path, first_id: int, items: int, clusters: int) -> tuple[float, float]:
    """Write and train a shard; return the seconds of writing and of training."""
    start = time.perf_counter()
    centres = np.random.default_rng(0).standard_normal((clusters, DIM), dtype=np.float32)
    generator, layout, records = np.random.default_rng([1, first_id]), Layout(root), []
    with mock.patch.object(os, "fsync"):  # a power failure may cost this benchmark its files
        for number, begin in enumerate(range(0, items, SEGMENT_ROWS)):
            count = min(SEGMENT_ROWS, items - begin)
            vectors = generator.standard_normal((count, DIM), dtype=np.float32)
            vectors += 1.5 * centres[generator.integers(0, clusters, count)]
            ids = range(first_id + begin, first_id + begin + count)
            writer = SegmentWriter(layout, f"000001-{number:05d}")
            writer.append(list(map(_item, ids)), [], {ENCODER: normalised(vectors).astype(np.float16)}, {})
            records.append(writer.finish())
        commit(layout, replace(EMPTY, segments=tuple(records), next_id=first_id + items), "tests")
    written = time.perf_counter()
    train_where_due(IndexReader(root).vector_reader)
    return written - start, time.perf_counter() - written


def _item(number: int) -> Item:
    return Item(number, f"/pictures/{number // 1000:06d}/{number:09d}.jpg", 1, 1, f"{number:064x}", 512, 512)


def queries(root: Path, count: int) -> NDArray[np.float32]:
    """Return vectors near items of a shard, not on them, float32 ``[count, DIM]``."""
    reader, generator = IndexReader(root), np.random.default_rng(2)
    rows = np.sort(generator.choice(len(reader), count, replace=False))
    near = reader.vector_reader.of_rows(ENCODER, rows).astype(np.float32)
    return normalised(near + 0.02 * generator.standard_normal(near.shape, dtype=np.float32))


def serve(root: Path, pipe: Connection) -> None:
    """Answer the questions of :class:`ShardProcess` until there are no more."""
    torch.set_num_threads(1)
    import_faiss().omp_set_num_threads(1)
    before, start = peak_memory(), time.perf_counter()
    reader = IndexReader(root)
    catalogue = time.perf_counter() - start
    index = reader.coarse_index(ENCODER)
    record = read_record(reader.layout, ENCODER)
    facts = {"catalogue_s": catalogue, "open_s": time.perf_counter() - start, "probes": record.probes if record else 0,
             "lists": record.lists if record else 0}  # fmt: skip
    pipe.send(facts)
    while (question := pipe.recv()) is not None:
        what, vectors = question
        if what == "search":
            rows, scores = index.search(vectors, COUNT)
            pipe.send((reader.ids[rows], scores))
        elif what == "exact":
            pipe.send(_exact(reader, vectors))
        else:
            pipe.send((peak_memory() - before) / 1e6)


def _exact(reader: IndexReader, vectors: NDArray[np.float32]) -> list[Found]:
    """Return the nearest items of each query by a comparison with all."""
    best = [(np.empty(0, np.int64), np.empty(0, np.float32)) for _ in vectors]
    for at in range(0, len(reader), BLOCK):
        rows = np.arange(at, min(at + BLOCK, len(reader)))
        scores = reader.vector_reader.of_rows(ENCODER, rows).astype(np.float32) @ vectors.T
        best = [merged([found, (reader.ids[rows], scores[:, number])]) for number, found in enumerate(best)]
    return best


def merged(answers: list[Found]) -> Found:
    """Return the nearest items among the answers of all shards."""
    ids, scores = (np.concatenate(parts) for parts in zip(*answers, strict=True))
    chosen = np.argsort(-scores, kind="stable")[:COUNT]
    return ids[chosen], scores[chosen]


class ShardProcess:
    """A shard in a process of its own."""

    def __init__(self, root: Path) -> None:
        """Start to open it; :attr:`facts` waits."""
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self._process = context.Process(target=serve, args=(root, other), daemon=True)
        self._process.start()

    def close(self) -> None:
        """End the process."""
        self.pipe.send(None)
        self._process.join(60)


def ask(shards: list[ShardProcess], what: str, vectors: object) -> list[object]:
    """Ask every shard at once, and return their answers."""
    for shard in shards:
        shard.pipe.send((what, vectors))
    return [shard.pipe.recv() for shard in shards]


def measure(roots: list[Path]) -> dict[str, object]:
    """Search all shards; return figures by name."""
    asked = run_apart(queries, roots[0], QUERIES)
    shards = [ShardProcess(root) for root in roots]
    facts = [shard.pipe.recv() for shard in shards]
    ask(shards, "search", asked[0])  # warms up
    times, found = [], []
    for query in asked:
        start = time.perf_counter()
        found.append(merged(ask(shards, "search", query)))  # type: ignore[arg-type]
        times.append(1e3 * (time.perf_counter() - start))
    memory = [float(value) for value in ask(shards, "memory", None)]  # type: ignore[arg-type]
    exact = [merged(list(each)) for each in zip(*ask(shards, "exact", asked), strict=True)]  # type: ignore[call-overload]
    for shard in shards:
        shard.close()
    recall = np.mean([len(np.intersect1d(a[0], b[0])) / COUNT for a, b in zip(found, exact, strict=True)])
    return {
        "search_ms_p50": statistics.median(times),
        "search_ms_p99": float(np.percentile(times, 99)),
        "recall_at_200": float(recall),
        "memory_mb_of_a_shard": max(memory),
        "memory_mb_in_all": sum(memory),
        **{name: max(fact[name] for fact in facts) for name in facts[0]},
    }


def many_segments(root: Path) -> dict[str, float]:
    """Commit segment after segment to an index of MANY, and open it; return figures by name."""
    layout, generator, records = Layout(root), np.random.default_rng(3), []
    with mock.patch.object(os, "fsync"):
        for number in range(MANY):
            writer = SegmentWriter(layout, f"000001-{number:05d}")
            vectors = generator.standard_normal((SMALL, DIM)).astype(np.float16)
            writer.append([_item(number * SMALL + each) for each in range(SMALL)], [], {ENCODER: vectors}, {})
            records.append(writer.finish())
        commit(layout, replace(EMPTY, segments=tuple(records), next_id=MANY * SMALL), "tests")
    commits = [_one_commit(layout, generator) for _ in range(5)]
    start = time.perf_counter()
    generation = read_current(layout)
    read = time.perf_counter() - start
    before = peak_memory()
    reader = IndexReader(root, generation)
    return {
        "segments": len(generation.segments),
        "items": len(reader),
        "commit_s": statistics.median(commits),
        "read_generation_s": read,
        "open_catalogue_s": time.perf_counter() - start - read,
        "generation_mb": layout.generation(generation.number).stat().st_size / 1e6,
        "memory_mb": (peak_memory() - before) / 1e6,
    }


def _one_commit(layout: Layout, generator: np.random.Generator) -> float:
    """Write a small segment and commit it as a driver does; return the seconds from the finished segment on."""
    generation: Generation = read_current(layout)
    writer = SegmentWriter(layout, new_segment_name(layout, generation.number))
    vectors = generator.standard_normal((SMALL, DIM)).astype(np.float16)
    writer.append([_item(generation.next_id + each) for each in range(SMALL)], [], {ENCODER: vectors}, {})
    record, next_id = writer.finish(), generation.next_id + SMALL
    start = time.perf_counter()
    record = seal_segment(layout, record, next_id)
    commit(layout, replace(generation, segments=(*generation.segments, record), next_id=next_id), "tests")
    return time.perf_counter() - start


def main() -> None:
    """Read the command line, write what is missing, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--items", type=int, default=10_000_000)
    parser.add_argument("--shards", type=int, default=4)
    asked = parser.parse_args()
    each = asked.items // asked.shards
    roots = [asked.folder / f"{asked.items}-{number}-of-{asked.shards}.diffsim" for number in range(asked.shards)]
    written = [
        run_apart(write, root, number * each, each, max(1, asked.items // CLUSTER))
        for number, root in enumerate(roots)
        if not root.exists()
    ]
    figures: dict[str, object] = {"items": asked.items, "shards": asked.shards}
    if written:
        figures["write_s"], figures["train_s"] = (sum(values) for values in zip(*written, strict=True))
    figures |= measure(roots)
    small = asked.folder / f"{MANY}-segments.diffsim"
    figures["many_segments"] = run_apart(many_segments, small) if not small.exists() else "measured by an earlier run"
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
