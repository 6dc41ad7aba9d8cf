"""Parts of an index that machines build without a scheduler, and the commit that takes them all."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from index_store.reader import IndexReader
from retrieval.errors import IndexIncompatibleError, IndexNotFoundError, UsageError
from retrieval.images.discovery import Listing, find_images
from retrieval.indexing.upkeep import merging
from retrieval.indexing.upkeep.repairing import verify
from retrieval.indexing.workers.shards import IndexPart, choices_of, commit_shards, shard_index, shards_of
from tests.indexing.builds import LAZY, build
from tests.support.sample_index import RUN, Contents, paint


def build_part(photos: Path, index: Path, number: int, of: int, **choices: Any) -> None:
    """Build one part as the command does."""
    shard = IndexPart(number, of)
    build(photos, shard_index(index, shard), only=partial(shard.part_of, index), **{**choices, **choices_of(index)})


def build_parts(photos: Path, index: Path, of: int = 3, **choices: Any) -> None:
    for number in range(1, of + 1):
        build_part(photos, index, number, of, **choices)


def by_path(index: Path) -> dict[str, tuple[Any, ...]]:
    """Return what an index holds of each path, without its id."""
    found = Contents.of(index)
    columns = [*found.vectors.values(), *found.tensors.values()]
    return {item.uri: (item.sha256, *(rows[n] for rows in columns)) for n, item in enumerate(found.items)}


@given(names=st.lists(st.text(min_size=1), unique=True, max_size=30), of=st.integers(1, 9))
def test_every_image_has_one_part(names: list[str], of: int) -> None:
    listing = Listing(tuple(names), 0)
    parts = [IndexPart(number, of).part_of(Path("none.diffsim"), listing).names for number in range(1, of + 1)]
    assert sorted(name for part in parts for name in part) == sorted(names)


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "1/0", "a/b", "-1/3", "1/3/5"])
def test_texts_that_name_no_part(text: str) -> None:
    with pytest.raises(UsageError, match="not a part"):
        IndexPart.parse(text)


def test_parts_make_the_index_of_one_build(photos: Path, index: Path, tmp_path: Path) -> None:
    (photos / "bad.png").write_bytes(b"no image")
    build(photos, tmp_path / "local.diffsim")
    build_parts(photos, index)
    change = commit_shards(index)
    assert by_path(index) == by_path(tmp_path / "local.diffsim")
    assert [reject.reason for reject in IndexReader(index).rejects()] == ["not_an_image"]
    assert (change.items, verify(index), shards_of(index).exists()) == (11, [], False)
    report = build(photos, index)
    assert (report.added, report.items) == (0, 11)


def test_later_parts_hold_new_and_changed_images_only(photos: Path, index: Path, tmp_path: Path) -> None:
    build(photos, index)
    paint(photos, range(2), seed=1)
    paint(photos, [20, 21, 22])
    build_parts(photos, index, of=2)
    parts = [IndexReader(shard_index(index, IndexPart(number, 2))) for number in (1, 2)]
    assert sum(map(len, parts)) == 5
    commit_shards(index)
    build(photos, tmp_path / "local.diffsim")
    assert by_path(index) == by_path(tmp_path / "local.diffsim")
    assert verify(index) == []


def test_lazy_parts(photos: Path, index: Path, tmp_path: Path) -> None:
    build_parts(photos, index, run=LAZY)
    commit_shards(index)
    reader = IndexReader(index)
    assert len(reader) == 11
    assert not reader.has_tensors("style").any()


def test_a_commit_that_was_stopped_goes_on(
    photos: Path, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_parts(photos, index)
    take, calls = merging._take, list[int]()

    def stop_at_second(*arguments: Any) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        take(*arguments)

    monkeypatch.setattr(merging, "_take", stop_at_second)
    with pytest.raises(KeyboardInterrupt):
        commit_shards(index)
    assert 0 < len(IndexReader(index)) < 11
    commit_shards(index)
    build(photos, tmp_path / "local.diffsim")
    assert by_path(index) == by_path(tmp_path / "local.diffsim")


def test_missing_parts_are_told(photos: Path, index: Path) -> None:
    with pytest.raises(IndexNotFoundError, match="no parts"):
        commit_shards(index)
    build_part(photos, index, 2, 3)
    with pytest.raises(UsageError, match=r"2 of 3 parts are missing in .*: 1/3, 3/3"):
        commit_shards(index)
    build_part(photos, index, 1, 2)
    with pytest.raises(UsageError, match="several divisions"):
        commit_shards(index)
    assert not index.exists()


def test_parts_of_another_recipe_are_refused(photos: Path, index: Path, tmp_path: Path) -> None:
    build(photos, tmp_path / "one.diffsim")
    build(photos, tmp_path / "two.diffsim", codec="hidden-float16")
    merging.merge_indexes(index, [tmp_path / "one.diffsim"])
    with pytest.raises(IndexIncompatibleError, match="codec"):
        merging.merge_indexes(index, [tmp_path / "two.diffsim"])
    assert len(IndexReader(index)) == 11


def test_an_object_store_needs_a_cluster() -> None:
    with pytest.raises(UsageError, match="Ray cluster"):
        shards_of("s3://bucket/coco.diffsim")


def test_merging_twice_adds_nothing(photos: Path, index: Path, tmp_path: Path) -> None:
    build(photos, tmp_path / "one.diffsim", RUN)
    for _ in range(2):
        change = merging.merge_indexes(index, [tmp_path / "one.diffsim"])
        assert change.items == len(find_images([photos]).names)
