"""The vector index on a torch device: the same rows, order and cosines as the scan by FAISS."""

import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from index_store.commit import commit
from index_store.generation import read_current
from index_store.layout import Layout
from index_store.reader import IndexReader
from index_store.segment_writer import SegmentWriter
from index_store.vectors import flat, training
from index_store.vectors.exact import Ranked, cosines
from index_store.vectors.flat import FlatIndex
from index_store.vectors.storage import normalised
from retrieval import Engine
from retrieval.search import coarse_vectors, gpu_index
from retrieval.search.gpu_index import MEMORY_SHARE, GpuIndex, belongs_on, open_vector_index
from retrieval.search.results import Results
from retrieval.settings import SearchChoices
from tests.slices import examples
from tests.support.ranking import assert_same_ranking
from tests.support.synthetic_index import ENCODER, add_segments

CPU = torch.device("cpu")
NEEDS_GPU = (pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"))
DEVICES = ["cpu", pytest.param("cuda", marks=NEEDS_GPU)]
Stored = NDArray[np.float16]
Roughly = Callable[[int], Ranked]


def in_parts(stored: Stored, held: NDArray[np.int64], cuts: int) -> Iterator[tuple[NDArray[np.int64], Stored]]:
    for rows in np.array_split(held, cuts):
        yield rows, stored[rows]


def brute_force(
    stored: Stored, held: NDArray[np.int64], query: NDArray[np.float32], count: int
) -> tuple[list[int], list[float]]:
    found = cosines(normalised(stored), query)
    order = np.lexsort((np.arange(len(stored)), -found))
    order = order[np.isin(order, held)][:count]
    return order.tolist(), found[order].tolist()


def assert_exact(device: str, stored: Stored, held: NDArray[np.int64], query: NDArray[np.float32], count: int) -> None:
    """Both ways equal the definition, to the bit."""
    there = np.zeros_like(stored)
    there[held] = stored[held]
    scan = FlatIndex(normalised(there), np.isin(np.arange(len(stored)), held))
    index = GpuIndex(in_parts(there, held, 3), len(stored), torch.device(device))
    assert (len(index), index.dim) == (len(scan), scan.dim)
    expected = brute_force(there, held, query, count)
    for each in (scan, index):
        rows, similarities = each.search(query, count)
        assert (rows.tolist(), similarities.tolist()) == expected
        assert (rows.dtype, similarities.dtype) == (np.int64, np.float32)
    some = np.random.default_rng(0).permutation(len(stored))
    np.testing.assert_array_equal(index.similarities(query, some), scan.similarities(query, some))


@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=examples(40), deadline=None)
@given(data=st.data())
def test_any_vectors_are_ordered_as_by_faiss(device: str, data: st.DataObject) -> None:
    """Few kinds of vectors, so that most are copies, some apart by one bit; rows without one are not found."""
    draw = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    rows, dim, kinds = (data.draw(st.integers(1, most)) for most in (400, 70, 12))
    stored = draw.standard_normal((kinds, dim)).astype(np.float16)[draw.integers(0, kinds, rows)]
    nudged = draw.integers(0, rows, rows // 3)
    stored[nudged, 0] = np.nextafter(stored[nudged, 0], np.float16(np.inf))
    held = np.flatnonzero(draw.random(rows) < data.draw(st.sampled_from([0.1, 0.9, 1.0])))
    held = draw.permutation(held) if len(held) else np.arange(rows)
    query = normalised(stored[:1].astype(np.float32) + 1e-3)[0]
    assert_exact(device, stored, held, query, data.draw(st.integers(1, rows + 5)))


@pytest.mark.parametrize("device", DEVICES)
def test_near_copies_by_the_thousand_are_ordered(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """More rows lie within the roundings of the last place than are taken at first; in blocks of a few rows."""
    draw = np.random.default_rng(5)
    picture = draw.standard_normal(256).astype(np.float32)
    stored = normalised(picture + 1e-4 * draw.standard_normal((3000, 256)).astype(np.float32)).astype(np.float16)
    monkeypatch.setattr(gpu_index, "SCAN_BYTES", 100_000)
    assert_exact(device, stored, np.arange(3000), normalised(picture[None])[0], 50)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("precision", ["highest", "medium"])
def test_products_keep_the_bound_whatever_torch_may_round(
    device: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the process has let torch's matrix products round to bfloat16 or TF32."""

    def all_products(roughly: Roughly, exactly: object, rows: int, count: int, error: float) -> Ranked:
        found, products = roughly(rows)
        return found, np.abs(products - scan.similarities(query, found)) / error

    draw = np.random.default_rng(6)
    stored = draw.standard_normal((3000, 384)).astype(np.float16) * np.float16(0.05)
    scan = FlatIndex(normalised(stored))
    index = GpuIndex([(np.arange(3000), stored)], 3000, torch.device(device))
    query = normalised(draw.standard_normal((1, 384)).astype(np.float32))[0]
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        for module, each in ((flat, scan), (gpu_index, index)):
            monkeypatch.setattr(module, "exact_nearest", all_products)
            rows, errors = each.search(query, 1)
            assert sorted(rows.tolist()) == list(range(3000))
            assert errors.max() < 1
    finally:
        torch.set_float32_matmul_precision(before)


def test_no_row_and_no_count_is_no_result() -> None:
    query = np.ones(4, np.float32)
    for index in (FlatIndex(np.zeros((0, 4), np.float32)), GpuIndex([], 0, CPU)):
        assert [len(array) for array in index.search(query, 3)] == [0, 0]
        assert len(index.similarities(query, np.empty(0, np.int64))) == 0


def test_only_a_gpu_with_room_takes_the_vectors() -> None:
    free = 1_000_000
    fits = int(MEMORY_SHARE * free)
    assert belongs_on("cuda", fits, free)
    assert not belongs_on("cuda", fits + 1, free)
    assert not belongs_on("cuda", 1, None)
    assert not belongs_on("cpu", 1, free)
    assert not belongs_on("mps", 1, free)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three segments, every seventh item removed, a second encoder that is filled in part and in another order."""
    root = tmp_path / "e.diffsim"
    generation = add_segments(root, [150, 250, 200], 24)
    order = np.random.default_rng(3).permutation(600)[:500]
    writer = SegmentWriter(Layout(root), "000002")
    writer.fill(order.tolist(), {"f": IndexReader(root).stored_vectors(ENCODER)[order, :16]}, {})
    segments = (*generation.segments, writer.finish())
    grown = replace(generation, encoders=(ENCODER, "f"), segments=segments, tombstones=tuple(range(0, 600, 7)))
    commit(Layout(root), grown, "tests")
    return root


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("encoder", [ENCODER, "f"])
def test_an_index_is_searched_alike(root: Path, device: str, encoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "IVF_FROM_ROWS", 200)
    monkeypatch.setattr(gpu_index, "belongs_on", lambda kind, needed, free: True)
    reader = IndexReader(root)
    scan = FlatIndex(reader.vectors(encoder), reader.has_vector(encoder))
    training.train_where_due(reader.vector_reader)
    stage = open_vector_index(reader, encoder, torch.device(device))
    assert isinstance(stage, GpuIndex)  # what was trained is not opened
    for query in reader.vectors(encoder)[::97]:
        for one, other in zip(stage.search(query, 30), scan.search(query, 30), strict=True):
            np.testing.assert_array_equal(one, other)
    assert reader.stored_vectors(encoder).nbytes <= reader.vector_bytes(encoder) <= 1.1 * scan.dim * 2 * len(scan)


def test_elsewhere_faiss_searches(root: Path) -> None:
    reader = IndexReader(root)
    assert isinstance(open_vector_index(reader, ENCODER, CPU), FlatIndex)
    empty = replace(read_current(Layout(root)), tombstones=tuple(range(600)))
    commit(Layout(root), empty, "tests")
    assert IndexReader(root).vector_bytes(ENCODER) == 0


def test_the_host_never_holds_all_vectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NumPy's memory is counted here, torch's, which stands for the GPU's, is not."""
    add_segments(tmp_path / "e.diffsim", [500] * 20, 512)
    monkeypatch.setattr(gpu_index, "belongs_on", lambda kind, needed, free: True)
    reader = IndexReader(tmp_path / "e.diffsim")
    query = normalised(np.ones((1, 512), np.float32))[0]
    open_vector_index(reader, ENCODER, CPU)  # places are found once, and kept
    tracemalloc.start()
    open_vector_index(reader, ENCODER, CPU).search(query, 100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.6 * reader.vector_bytes(ENCODER)  # of float16; 4 MB are the buffer of a file's checksum


def test_an_engine_finds_the_same_either_way(index: Path, gallery: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    query = sorted(gallery.rglob("*.png"))[3]

    def searches() -> list[Results]:
        engine = Engine.open(index)
        choices: list[SearchChoices] = [{}, {"rerank": False}, {"exhaustive": True}]
        return [engine.search(query, candidates=12, k=12, **each) for each in choices]

    by_faiss = searches()
    opened: list[str] = []

    def on_the_device(reader: IndexReader, encoder: str, device: torch.device) -> GpuIndex:
        opened.append(encoder)
        stage = open_vector_index(reader, encoder, device)
        assert isinstance(stage, GpuIndex)
        return stage

    monkeypatch.setattr(gpu_index, "belongs_on", lambda kind, needed, free: True)
    monkeypatch.setattr(coarse_vectors, "open_vector_index", on_the_device)
    for found, expected in zip(searches(), by_faiss, strict=True):
        assert_same_ranking(found, expected)
        coarse = {result.id: result.coarse_score for result in expected}
        assert {result.id: result.coarse_score for result in found} == pytest.approx(coarse, abs=1e-6)
    assert len(opened) == 1
