"""Candidates: our index beside libraries of approximate nearest neighbours, on the same vectors.

Each peer lives in processes of its own: one builds, one opens what was built and searches. The parent asks all of them
in turns. A peer's effort is the least of its steps that finds 99 % of the exact 200 nearest.
"""

import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.bench.peers.coarse_peers import BLOCK, PACKAGE_OF, PEERS, coarse_peer
from tests.bench.peers.tables import Spread, installed, keep

DIM, COUNT, TARGET, QUERIES = 768, 200, 0.99, 64
SLOW = {"faiss-hnsw", "hnswlib", "usearch-f16", "usearch-i8", "lancedb", "qdrant"}  # a million takes many minutes
COLUMNS = (
    *("peer", "effort", "recall@10", "recall@100", "recall@200", "one query, ms", "a query of 64, all threads, ms"),
    *("build, s", "memory, MB", "of float16", "mapped, MB", "disk, MB", "1 % new rows, s", "new rows found"),
)
_opened: Any = None


def write_clustered(path: Path, rows: int, dim: int = DIM) -> None:
    """Write float16 vectors of norm 1: a centre for a thousand rows, each row that far from it as centres are."""
    random = np.random.default_rng(0)
    centres = random.standard_normal((max(1, rows // 1000), dim), dtype=np.float32)
    out = np.lib.format.open_memmap(path, "w+", np.float16, (rows, dim))
    for at in range(0, rows, BLOCK):
        block = random.standard_normal((min(BLOCK, rows - at), dim), dtype=np.float32)
        block += 1.5 * centres[random.integers(0, len(centres), len(block))]
        out[at : at + len(block)] = block / np.linalg.norm(block, axis=1, keepdims=True)
    out.flush()


def write_tokens(path: Path, rows: int) -> None:
    """Write real vectors: tokens of ``mini`` over drawn pictures, each drawn anew with another seed."""
    import torch
    from PIL import Image

    from retrieval.models.mini.attention import mini_on
    from retrieval.models.modes import MINI_MODES
    from retrieval.sample_images.pictures import MOTIFS, STYLES, draw

    model, target = mini_on(torch.device("cpu"), 224), MINI_MODES["semantic"].target
    names = [(style, motif) for style in STYLES for motif in MOTIFS]
    out, at = np.lib.format.open_memmap(path, "w+", np.float16, (rows, 320)), 0
    while at < rows:
        number = at // 49
        style, motif = names[number % len(names)]
        pixels = model.prepare(Image.fromarray(draw(style, motif, 224, number)))
        hidden = model.hidden(pixels[None], [target], "gallery")[target][0, 0].float()
        tokens = (hidden / hidden.norm(dim=1, keepdim=True)).numpy()[: rows - at]
        out[at : at + len(tokens)] = tokens
        at += len(tokens)
    out.flush()


def exact(vectors: NDArray[np.float16], queries: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the numbers of the COUNT nearest vectors of each query, best first."""
    best, ids = np.full((len(queries), COUNT), -2, np.float32), np.zeros((len(queries), COUNT), np.int64)
    for at in range(0, len(vectors), BLOCK):
        scores = queries @ vectors[at : at + BLOCK].astype(np.float32).T
        both = np.concatenate([best, scores], axis=1)
        numbers = np.concatenate([ids, np.broadcast_to(np.arange(at, at + scores.shape[1]), scores.shape)], axis=1)
        order = np.argsort(-both, axis=1)[:, :COUNT]
        best, ids = np.take_along_axis(both, order, axis=1), np.take_along_axis(numbers, order, axis=1)
    return ids


def recall(found: NDArray[np.int64], right: NDArray[np.int64], count: int) -> float:
    """Return the share of the exact ``count`` nearest among the first ``count`` found."""
    pairs = zip(found[:, :count], right[:, :count], strict=True)
    return float(np.mean([len(np.intersect1d(a, b)) / count for a, b in pairs]))


class Apart:
    """A process of one peer."""

    def __init__(self, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(1, context, initializer=_limit, initargs=(threads,))

    def __call__(self, function: Any, *arguments: Any) -> Any:
        return self._pool.submit(function, *arguments).result()

    def end(self) -> None:
        self._pool.shutdown()


def _limit(threads: int) -> None:
    os.environ["OMP_NUM_THREADS"] = os.environ["LANCE_CPU_THREADS"] = str(threads)


def _build(name: str, vectors: Path, folder: Path, threads: int) -> float:
    peer, stored = coarse_peer(name), np.load(vectors, mmap_mode="r")
    start = time.perf_counter()
    peer.build(stored, folder, threads)
    return time.perf_counter() - start


def _open(name: str, folder: Path, threads: int) -> None:
    global _opened
    _opened = coarse_peer(name)
    _opened.open(folder, threads)


def _search(queries: NDArray[np.float32], count: int, knob: int) -> tuple[NDArray[np.int64], float]:
    start = time.perf_counter()
    found = _opened.search(queries, count, knob)
    return found, 1e3 * (time.perf_counter() - start)


def _add(vectors: NDArray[np.float16], first: int, queries: NDArray[np.float32], knob: int) -> float:
    start = time.perf_counter()
    _opened.add(vectors, first)
    _opened.search(queries[:1], COUNT, knob)
    return time.perf_counter() - start


def _memory() -> NDArray[np.float64]:
    """Return the megabytes of this process's own memory, and those of mapped files, which the system shares."""
    found = dict(line.split(":") for line in Path("/proc/self/status").read_text("ascii").splitlines())
    return np.array([int(found[name].split()[0]) * 1024 / 1e6 for name in ("RssAnon", "RssFile")])


def _effort(process: Apart, knobs: Sequence[int], queries: Any, right: Any) -> tuple[int, NDArray[np.int64]]:
    for knob in knobs:
        found, _ = process(_search, queries, COUNT, knob)
        if recall(found, right, COUNT) >= TARGET:
            break
    return knob, found


def measure(vectors: Path, names: Sequence[str], work: Path, rounds: int) -> list[dict[str, Any]]:
    """Build, open, search and extend every peer; return a row each."""
    stored = np.load(vectors, mmap_mode="r")
    random, everything = np.random.default_rng(1), os.cpu_count() or 1
    queries = stored[np.sort(random.choice(len(stored), QUERIES, replace=False))].astype(np.float32)
    queries += 0.02 * random.standard_normal(queries.shape, dtype=np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    right, rows, one, many = exact(stored, queries), dict[str, dict[str, Any]](), dict[str, Apart](), dict[str, Apart]()
    for name in names:
        folder, builder, one[name], many[name] = work / name, Apart(everything), Apart(1), Apart(everything)
        row = rows[name] = {"peer": name, "settings": coarse_peer(name).settings}
        row["build, s"] = builder(_build, name, vectors, folder, everything)
        builder.end()
        before = one[name](_memory)
        one[name](_open, name, folder, 1)
        row["effort"], found = _effort(one[name], coarse_peer(name).knobs, queries, right)
        row["memory, MB"], row["mapped, MB"] = (one[name](_memory) - before).tolist()
        row["of float16"] = 1e6 * row["memory, MB"] / stored.nbytes
        row["disk, MB"] = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
        row |= {f"recall@{count}": recall(found, right, count) for count in (10, 100, 200)}
        many[name](_open, name, folder, everything)
        print(f"{name}: built in {row['build, s']:.0f} s; recall {row['recall@200']:.3f}", file=sys.stderr, flush=True)
    _time(rows, one, many, queries, rounds)
    for name in names:
        many[name].end()
        rows[name] |= _extend(one[name], stored, queries, rows[name]["effort"])
        one[name].end()
        shutil.rmtree(work / name)
    return list(rows.values())


def _time(
    rows: Mapping[str, dict[str, Any]], one: Mapping[str, Apart], many: Mapping[str, Apart], queries: Any, rounds: int
) -> None:
    """Time every peer in turns: single queries on one thread, and all queries at once on all threads."""
    single: dict[str, list[float]] = {name: [] for name in rows}
    batch: dict[str, list[float]] = {name: [] for name in rows}
    for number in range(rounds + 1):
        for name, row in rows.items():
            for at in range(number % 8, QUERIES, 8):
                _, ms = one[name](_search, queries[at : at + 1], COUNT, row["effort"])
                single[name] += [ms] if number else []
            _, ms = many[name](_search, queries, COUNT, row["effort"])
            batch[name] += [ms / QUERIES] if number else []
    for name, row in rows.items():
        row["one query, ms"], row["a query of 64, all threads, ms"] = Spread.of(single[name]), Spread.of(batch[name])


def _extend(process: Apart, stored: Any, queries: Any, knob: int) -> dict[str, float]:
    """Add 1 % of new rows; return the seconds until a search has them, and the share that finds itself first."""
    random = np.random.default_rng(2)
    new = stored[random.choice(len(stored), len(stored) // 100, replace=False)].astype(np.float32)
    new += 0.01 * random.standard_normal(new.shape, dtype=np.float32)
    new /= np.linalg.norm(new, axis=1, keepdims=True)
    seconds = process(_add, new.astype(np.float16), len(stored), queries, knob)
    asked = np.arange(len(new))[:: max(1, len(new) // 64)]
    found, _ = process(_search, new[asked], COUNT, knob)
    return {"1 % new rows, s": seconds, "new rows found": float(np.mean(found[:, 0] == len(stored) + asked))}


def run(rows: int, real: bool, names: Sequence[str], out: Path, rounds: int) -> None:
    """Measure one size and keep the table."""
    chosen = [name for name in names or PEERS if installed(PACKAGE_OF.get(name, name))]
    if not names and rows > 300_000:
        chosen = [name for name in chosen if name not in SLOW]
    with tempfile.TemporaryDirectory() as folder:
        vectors = Path(folder) / "vectors.npy"
        write_tokens(vectors, rows) if real else write_clustered(vectors, rows)
        found = measure(vectors, chosen, Path(folder), rounds)
    kind = "tokens of drawn pictures, 320" if real else f"clustered, {DIM}"
    left = [name for name in PEERS if name not in chosen]
    keep(out, f"coarse-{'real' if real else 'clustered'}-{rows}", COLUMNS, found, vectors=rows, of=kind, left_out=left)
