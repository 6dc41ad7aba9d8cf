"""The cache of tensors that searches computed: whole or not there, within its budget, the least recently used out."""

import multiprocessing
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from index_store.layout import Layout
from index_store.tensors.cache import CacheKey, TensorCache, cache_size
from tests.slices import examples
from tests.support.faults import flip_bit

DIGEST = "0123456789abcdef"
FILE_BYTES = 450  # of one item below, somewhat more than its arrays


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "x.diffsim")


def key(number: int, mode: str = "style", digest: str = DIGEST) -> CacheKey:
    return CacheKey(mode, digest, f"{number:064x}")


def arrays(number: int) -> dict[str, NDArray[np.float16]]:
    return {name: np.full((1, 2, 4, 4), number + n, np.float16) for n, name in enumerate("qkv")}


def path_of(layout: Layout, number: int) -> Path:
    return layout.cache / "style" / DIGEST / "000" / key(number).sha256


def holds(cache: TensorCache, number: int) -> bool:
    found = cache.get(key(number))
    if found is None:
        return False
    assert list(found) == ["q", "k", "v"]
    for name, expected in arrays(number).items():
        np.testing.assert_array_equal(found[name], expected)
        assert found[name].dtype == np.float16
    return True


def test_what_is_put_is_got_by_any_process_and_only_under_its_key(layout: Layout) -> None:
    cache = TensorCache(layout, 10**6)
    assert not holds(cache, 1)
    assert cache_size(layout) == (0, 0)
    assert all(cache.put(key(number), arrays(number)) for number in (1, 2, 1001))
    again = TensorCache(layout, 0)
    assert [holds(again, number) for number in (1, 2, 1001, 3)] == [True, True, True, False]
    assert again.get(key(1, mode="instance")) is None
    assert again.get(key(1, digest="0" * 16)) is None
    assert cache.images("style", DIGEST) == {key(number).sha256 for number in (1, 2, 1001)}
    assert cache.images("style", "0" * 16) == set()
    assert cache_size(layout)[0] == 3
    cache.drop(key(2))
    cache.drop(key(2))
    assert cache.images("style", DIGEST) == {key(1).sha256, key(1001).sha256}


@settings(max_examples=examples(80), deadline=None)
@given(bit=st.integers(0, 8 * 400))
def test_any_flipped_bit_is_found(tmp_path_factory: pytest.TempPathFactory, bit: int) -> None:
    layout = Layout(tmp_path_factory.mktemp("cache"))
    cache = TensorCache(layout, 10**6)
    cache.put(key(5), arrays(5))
    flip_bit(path_of(layout, 5), bit)
    assert cache.get(key(5)) is None
    assert cache.put(key(5), arrays(5))
    assert holds(cache, 5)


@pytest.mark.parametrize("content", [b"", b"{}", b"\n", bytes(500), b"{}\n" + bytes(8), b"null\n    "])
def test_other_files_are_none(layout: Layout, content: bytes) -> None:
    import google_crc32c

    cache = TensorCache(layout, 10**6)
    cache.put(key(5), arrays(5))
    whole = path_of(layout, 5).read_bytes()
    for data in (content, content + int(google_crc32c.value(content)).to_bytes(4, "little"), whole[:-1], whole + b"0"):
        path_of(layout, 5).write_bytes(data)
        assert cache.get(key(5)) is None
    path_of(layout, 5).unlink()
    cache.put(key(6), arrays(6))
    path_of(layout, 6).write_bytes(whole)  # under another item's name
    assert cache.get(key(6)) is None


def test_the_budget_holds_and_the_least_recently_used_leaves(layout: Layout) -> None:
    cache = TensorCache(layout, 10 * FILE_BYTES)
    for number in range(8):
        assert cache.put(key(number), arrays(number))
        os.utime(path_of(layout, number), ns=(number, number))
    assert holds(cache, 0)
    assert holds(cache, 3)
    for number in range(8, 40):
        assert cache.put(key(number), arrays(number))
        assert cache_size(layout)[1] <= 10 * FILE_BYTES
        if number == 12:
            left = [n for n in range(8) if path_of(layout, n).exists()]
            assert left == [0, 3, *range(10 - len(left), 8)], "the oldest of the others have left"
            assert 2 <= len(left) < 6
    assert holds(cache, 39)
    assert not holds(cache, 0)
    assert cache_size(layout)[0] >= 7


def test_a_smaller_budget_takes_out_more_and_none_keeps_nothing(layout: Layout) -> None:
    cache = TensorCache(layout, 10**6)
    for number in range(10):
        cache.put(key(number), arrays(number))
    assert not TensorCache(layout, 0).put(key(10), arrays(10))
    assert not TensorCache(layout, 100).put(key(10), arrays(10))
    assert cache_size(layout)[0] == 10
    assert TensorCache(layout, 4 * FILE_BYTES).put(key(10), arrays(10))
    assert cache_size(layout)[1] <= 4 * FILE_BYTES
    assert holds(cache, 10)


def test_what_a_kill_left_unfinished_counts_and_goes_after_an_hour(layout: Layout) -> None:
    cache = TensorCache(layout, 3 * FILE_BYTES)
    cache.put(key(1), arrays(1))
    old, new = (path_of(layout, 1).with_name(f".tmp-{n}-1") for n in (7, 8))
    for path in (old, new):
        path.write_bytes(bytes(FILE_BYTES))
    os.utime(old, (0, time.time() - 4000))
    assert cache_size(layout) == (2, FILE_BYTES + path_of(layout, 1).stat().st_size)
    assert not old.exists()
    assert new.exists()
    assert cache.images("style", DIGEST) == {key(1).sha256}


def test_a_place_that_may_not_be_written_keeps_nothing_and_is_no_error(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout.root.mkdir()
    layout.cache.write_bytes(b"a file in the way")
    assert not TensorCache(layout, 10**6).put(key(1), arrays(1))
    layout.cache.unlink()
    cache = TensorCache(layout, 10**6)
    assert cache.put(key(1), arrays(1))

    def read_only(*arguments: object, **options: object) -> None:
        raise PermissionError

    for name in ("replace", "utime"):
        monkeypatch.setattr(os, name, read_only)
    assert not cache.put(key(2), arrays(2))
    assert [path.name for path in layout.cache.rglob("*") if path.is_file()] == [key(1).sha256], (
        "nothing unfinished stays"
    )
    assert holds(cache, 1)


def _hammer(root: Path, seed: int) -> int:
    """Put and get in a process of its own; return how many gets were answered. A wrong answer raises."""
    cache, numbers = TensorCache(Layout(root), 12 * FILE_BYTES), np.random.default_rng(seed)
    answered = 0
    for number in numbers.integers(0, 20, 150).tolist():
        answered += holds(cache, number)
        cache.put(key(number), arrays(number))
    return answered


@pytest.mark.thorough
def test_processes_and_threads_share_it_without_a_lock(layout: Layout) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool, ThreadPoolExecutor(2) as threads:
        waiting = pool.starmap_async(_hammer, [(layout.root, 1), (layout.root, 2)])
        mine = list(threads.map(_hammer, [layout.root] * 2, [3, 4]))
        answered = mine + waiting.get(timeout=60)
    assert min(answered) > 0
    assert list(layout.cache.rglob(".tmp*")) == []
    # Each knows of the others' files when it looks again, and writes two at most until then: a tenth of its budget.
    assert cache_size(layout)[1] <= (12 + 3 * 2) * FILE_BYTES
