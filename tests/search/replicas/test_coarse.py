"""The coarse stage over replicas finds the rows of one process, to the bit: flat and IVF, with copies and gaps."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from index_store.catalog import Item
from index_store.commit import commit
from index_store.generation import Generation, read_current
from index_store.layout import Layout
from index_store.reader import IndexReader
from index_store.segment_writer import SegmentWriter
from index_store.vectors import training
from index_store.vectors.ivf_and_rest import IVFAndRestIndex
from index_store.vectors.training import train_where_due
from retrieval.search import gpu_index
from retrieval.search.coarse_vectors import CosinesAsk, LocalVectors, NearestAsk
from retrieval.search.gpu_index import GpuIndex
from retrieval.search.replicas.fleet import Fleet
from retrieval.search.replicas.ownership import Ownership
from retrieval.search.replicas.plan import ReplicaPlan
from retrieval.search.replicas.replica import ReplicaSpec
from retrieval.search.replicas.replica_vectors import ReplicaVectors
from retrieval.search.replicas.transport import LocalTransport
from retrieval.settings import EngineSettings
from tests.slices import examples
from tests.support.synthetic_index import EMPTY, ENCODER, add_segments

CPU = torch.device("cpu")


def over_replicas(root: Path, replicas: int) -> tuple[Fleet, ReplicaVectors, LocalVectors]:
    spec = ReplicaSpec(str(root), EngineSettings(device="cpu"), loads_at_once=False)
    reader, fleet = IndexReader(root), Fleet(LocalTransport(spec), replicas)
    plan = ReplicaPlan.make({s.name: s.data_rows for s in reader.generation.segments}, replicas)
    abouts = fleet.open(reader.generation.number, plan)
    owners = Ownership(reader, plan.partitions)
    vectors = ReplicaVectors(fleet, reader.generation.number, owners, abouts)
    return fleet, vectors, LocalVectors(IndexReader(root), CPU)


def assert_alike(root: Path, replicas: int, queries: NDArray[np.float32], counts: list[int], seed: int = 0) -> None:
    fleet, spread, alone = over_replicas(root, replicas)
    try:
        items, draw = len(IndexReader(root)), np.random.default_rng(seed)
        some = np.flatnonzero(draw.random(items) < 0.4)
        asks = [NearestAsk(ENCODER, q, count, allowed) for q in queries for count in counts for allowed in (None, some)]
        for ask, mine, theirs in zip(asks, spread.nearest(asks), alone.nearest(asks), strict=True):
            for one, other in zip(mine, theirs, strict=True):
                np.testing.assert_array_equal(one, other, err_msg=f"{ask.count} of {items}")
        rows = draw.permutation(items)[:50]
        cosines = [CosinesAsk(ENCODER, queries[:2], rows)]
        np.testing.assert_array_equal(spread.cosines(cosines)[0], alone.cosines(cosines)[0])
        np.testing.assert_array_equal(spread.vectors(ENCODER, rows), alone.vectors(ENCODER, rows))
    finally:
        fleet.close()


def write(root: Path, segments: list[NDArray[np.float32]], removed: list[int]) -> None:
    """Write segments of these vectors; a removed id stays in its segment."""
    layout, generation, records, first = Layout(root), EMPTY, [], 0
    for number, vectors in enumerate(segments):
        writer = SegmentWriter(layout, f"000001-{number:04d}")
        items = [Item(n, f"/p/{n}.jpg", 1, 1, f"{n:064x}", 9, 9) for n in range(first, first + len(vectors))]
        writer.append(items, [], {ENCODER: vectors.astype(np.float16)}, {})
        records.append(writer.finish())
        first += len(vectors)
    grown: Generation = replace(generation, segments=tuple(records), next_id=first, tombstones=tuple(sorted(removed)))
    commit(layout, grown, "tests")


@settings(max_examples=examples(15))
@given(st.integers(0, 2**32), st.lists(st.integers(1, 30), min_size=1, max_size=6), st.integers(1, 5))
def test_flat_indexes_with_copies_and_removed_items(
    tmp_path_factory: pytest.TempPathFactory, seed: int, sizes: list[int], replicas: int
) -> None:
    draw, root = np.random.default_rng(seed), tmp_path_factory.mktemp("flat") / "e.diffsim"
    kinds = draw.standard_normal((5, 6)).astype(np.float32)  # few, so that there are copies in all segments
    kinds /= np.linalg.norm(kinds, axis=1, keepdims=True)
    every = kinds[draw.integers(0, 5, sum(sizes))]
    write(root, np.split(every, np.cumsum(sizes)[:-1]), np.flatnonzero(draw.random(sum(sizes)) < 0.2).tolist())
    if len(IndexReader(root)):
        assert_alike(root, replicas, kinds[:3], [1, 4, sum(sizes)], seed)


def test_partitions_on_a_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scan of a GPU, with the CPU in its place."""
    add_segments(tmp_path / "e.diffsim", [30, 40, 50], 12)
    whole = IndexReader(tmp_path / "e.diffsim").vector_bytes(ENCODER)  # one process stays with FAISS
    monkeypatch.setattr(gpu_index, "belongs_on", lambda kind, needed, free: needed < whole)
    opened: list[int] = []

    def on_the_device(parts: Any, rows: int, device: torch.device) -> GpuIndex:
        opened.append(rows)
        return GpuIndex(parts, rows, device)

    monkeypatch.setattr(gpu_index, "GpuIndex", on_the_device)
    assert_alike(tmp_path / "e.diffsim", 2, IndexReader(tmp_path / "e.diffsim").vectors(ENCODER)[::31], [5, 120])
    assert sum(opened) == 120


def test_vectors_that_are_not_finite_are_never_found(tmp_path: Path) -> None:
    vectors = np.eye(6, dtype=np.float32).repeat(5, axis=0)
    vectors[[3, 17]] = np.nan
    write(tmp_path / "e.diffsim", np.split(vectors, 3), [])
    assert_alike(tmp_path / "e.diffsim", 3, np.eye(6, dtype=np.float32)[:2], [4, 30])


@pytest.mark.parametrize("replicas", [2, 4])
def test_an_ivf_index_is_probed_as_in_one_process(
    tmp_path: Path, replicas: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "IVF_FROM_ROWS", 200)
    root = tmp_path / "e.diffsim"
    add_segments(root, [150, 250, 200, 90], 12)
    train_where_due(IndexReader(root).vector_reader)
    grown = add_segments(root, [40], 12, generation=read_current(Layout(root)))  # newer than the training
    commit(Layout(root), replace(grown, tombstones=tuple(range(0, 700, 9))), "tests")
    reader = IndexReader(root)
    assert isinstance(reader.coarse_index(ENCODER), IVFAndRestIndex)
    assert_alike(root, replicas, reader.vectors(ENCODER)[::61], [1, 20, 200, 640])
