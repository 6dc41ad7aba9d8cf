"""Searches among allowed rows equal a filtered scan of all rows, to the bit, however few rows are allowed."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from index_store.commit import commit
from index_store.generation import Generation, read_current
from index_store.layout import Layout
from index_store.reader import IndexReader
from index_store.vectors import exact, flat, ivf_and_rest, training
from index_store.vectors.exact import best_first, cosines
from index_store.vectors.flat import FlatIndex, import_faiss
from index_store.vectors.ivf_and_rest import IVFAndRestIndex
from index_store.vectors.storage import normalised
from index_store.vectors.training import train_where_due
from retrieval.search import gpu_index
from retrieval.search.gpu_index import GpuIndex, VectorIndex
from tests.support.synthetic_index import ENCODER, add_segments

KINDS = ("flat", "flat with gaps", "gpu", "ivf", "ivf and rest")


@contextmanager
def few(rows: int) -> Iterator[None]:
    """Compare up to so many allowed rows one by one."""
    with ExitStack() as patches:
        for module in (flat, ivf_and_rest, gpu_index):
            patches.enter_context(mock.patch.object(module, "FEW_ROWS", rows))
        yield


class Case:
    """One index, its vectors, and the rows that have one."""

    def __init__(self, index: VectorIndex, vectors: NDArray[np.float32], held: NDArray[np.bool_]) -> None:
        self.index, self.vectors, self.held = index, vectors, held

    def check(self, query: NDArray[np.float32], count: int, allowed: NDArray[np.int64]) -> None:
        rows = allowed[self.held[allowed]]
        expected, similarities = best_first(rows, cosines(self.vectors[rows], query), count)
        found, given = self.index.search(query, count, allowed)
        assert found.tolist() == expected.tolist()
        np.testing.assert_array_equal(given, similarities)


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    """Small indexes: copies among the first three, removed rows in the others, and 60 newer than the training."""
    rng = np.random.default_rng(5)
    stored = rng.standard_normal((300, 12)).astype(np.float32)
    stored[::7] = stored[3]
    stored = (stored / np.linalg.norm(stored, axis=1, keepdims=True)).astype(np.float16)
    vectors, every = normalised(stored), np.ones(300, bool)
    held = np.arange(300) % 5 != 2
    parts = [(np.flatnonzero(held), stored[held])]
    gpu = GpuIndex(parts, 300, torch.device("cpu"))
    found = {
        "flat": Case(FlatIndex(vectors), vectors, every),
        "flat with gaps": Case(FlatIndex(np.where(held[:, None], vectors, 0), held), vectors, held),
        "gpu": Case(gpu, vectors, held),
    }
    for name, newer in (("ivf", 0), ("ivf and rest", 60)):
        root = tmp_path_factory.mktemp("ivf") / "e.diffsim"
        generation = add_segments(root, [200, 140], 12)
        with mock.patch.object(training, "IVF_FROM_ROWS", 200):
            train_where_due(IndexReader(root).vector_reader)
        if newer:
            add_segments(root, [newer], 12, seed=1, generation=generation)
        grown = read_current(Layout(root))
        commit(Layout(root), _without(grown, range(5, 400, 20)), "tests")
        reader = IndexReader(root)
        index = reader.coarse_index(ENCODER)
        assert isinstance(index, IVFAndRestIndex)
        found[name] = Case(index, reader.vectors(ENCODER), np.ones(len(reader), bool))
    return found


def _without(generation: Generation, ids: range) -> Generation:
    return replace(generation, tombstones=tuple(number for number in ids if number < generation.next_id))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(
    share=st.sampled_from((0.0, 0.004, 0.05, 0.5, 0.97, 1.0)),
    count=st.sampled_from((1, 10, 100, 500)),
    one_by_one=st.sampled_from((0, 1024)),
    seed=st.integers(0, 1000),
)
def test_equal_to_a_filtered_scan(
    kind: str, share: float, count: int, one_by_one: int, seed: int, cases: dict[str, Case]
) -> None:
    case, rng = cases[kind], np.random.default_rng(seed)
    rows = len(case.vectors)
    allowed = np.sort(rng.choice(rows, max(1, round(share * rows)), replace=False))
    with few(one_by_one):
        case.check(case.vectors[seed % rows], count, allowed)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_allowed_is_nothing_found(kind: str, cases: dict[str, Case]) -> None:
    for rows in (0, 1024):
        with few(rows):
            cases[kind].check(cases[kind].vectors[0], 5, np.empty(0, np.int64))


def test_selectors_of_bits_and_of_sets_choose_alike() -> None:
    faiss, ids = import_faiss(), np.array([3, 70, 999])
    for most in (1000, exact.FEW_BITS * 2):
        selector = exact.selector_of(faiss, ids, most)
        assert [number for number in range(1200) if selector.is_member(number)] == ids.tolist()
    assert type(selector) is faiss.IDSelectorBatch
