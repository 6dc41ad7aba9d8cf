"""`python -m tests.bench.coarse [--device cpu]`: time both exact scans for candidates, in FAISS and in torch."""

import argparse
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from index_store.vectors.flat import FlatIndex, import_faiss
from index_store.vectors.storage import normalised
from retrieval.search.gpu_index import GpuIndex
from tests.bench.timing import Row, in_turns

SIZES = ((20_000, 256), (20_000, 768), (200_000, 256), (200_000, 768))  # vectors, entries
COUNT = 200
BLOCK = 10_000


def measure(device: str) -> list[Row]:
    """Time both, with one thread and over the same random vectors; the results must be equal."""
    torch.set_num_threads(1)
    import_faiss().omp_set_num_threads(1)
    rows: list[Row] = []
    for count, dim in SIZES:
        generator = np.random.default_rng(0)
        blocks = [generator.standard_normal((BLOCK, dim), dtype=np.float32) for _ in range(count // BLOCK)]
        stored = np.concatenate([normalised(block).astype(np.float16) for block in blocks])
        scan = FlatIndex(normalised(stored))
        index = GpuIndex([(np.arange(count), stored)], count, torch.device(device))
        query = normalised(generator.standard_normal((1, dim), dtype=np.float32))[0]
        for one, other in zip(scan.search(query, COUNT), index.search(query, COUNT), strict=True):
            np.testing.assert_array_equal(one, other)
        variants: dict[str, Callable[[], object]] = {
            "faiss": partial(scan.search, query, COUNT),
            "torch": partial(index.search, query, COUNT),
        }
        times = in_turns(variants)
        what = f"{COUNT} nearest of {count} vectors of {dim}, torch on {device}"
        rows.append((what, f"{times['torch']:.1f} ms", f"FAISS {times['faiss']:.1f} ms, one thread"))
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    for row in measure(parser.parse_args().device):
        print(" | ".join(row))
