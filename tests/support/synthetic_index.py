"""Indexes of random vectors, without tensors, for tests that depend on the number of items alone."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index_store.catalog import Item
from index_store.commit import commit
from index_store.generation import Generation
from index_store.layout import Layout
from index_store.segment_writer import SegmentWriter

ENCODER = "e"
EMPTY = Generation(0, {"model": {"name": "none"}, "encoders": {ENCODER: {}}}, {}, (), (ENCODER,), ())


def add_segments(
    root: Path,
    rows: Sequence[int],
    dim: int,
    seed: int = 0,
    generation: Generation = EMPTY,
    structured: bool = True,
) -> Generation:
    """Add segments of ``rows`` items in one commit; ``structured`` vectors lie around a centre per thousand rows."""
    generator = np.random.default_rng([seed, generation.next_id])
    centres = generator.standard_normal((max(1, sum(rows) // 1000), dim), dtype=np.float32)
    parts = []
    for count in rows:
        vectors = generator.standard_normal((count, dim), dtype=np.float32)
        if structured:
            vectors += 1.5 * centres[generator.integers(0, len(centres), count)]
        parts.append((vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16))
    return add_vectors(root, parts, generation)


def add_vectors(root: Path, parts: Sequence[NDArray[np.float16]], generation: Generation = EMPTY) -> Generation:
    """Add a segment for each of ``parts [rows, dim]`` in one commit."""
    layout, records, next_id = Layout(root), [], generation.next_id
    for number, vectors in enumerate(parts):
        ids = range(next_id, next_id + len(vectors))
        items = [Item(n, f"/pictures/{n // 1000:06d}/{n:09d}.jpg", 1, 1, f"{n:064x}", 512, 512) for n in ids]
        writer = SegmentWriter(layout, f"{generation.number + 1:06d}-{number:04d}")
        writer.append(items, [], {ENCODER: vectors}, {})
        records.append(writer.finish())
        next_id += len(vectors)
    grown = replace(generation, segments=(*generation.segments, *records), next_id=next_id)
    return commit(layout, grown, "tests")
