"""Photos and their index travel together or apart; sources are listed, dropped and relocated."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from index_store.catalog_files.sources import Source
from index_store.reader import IndexReader
from retrieval.errors import UsageError
from retrieval.indexing.sources.upkeep import drop_source, list_sources, relocate_sources
from retrieval.indexing.upkeep.compacting import compact
from retrieval.search.engine import Engine
from tests.indexing.builds import build, computed, ids_of
from tests.support.sample_index import RUN, paint

pytestmark = pytest.mark.usefixtures("tiny")
IMAGES = 8


def paths_in(index: Path) -> set[str]:
    return set(IndexReader(index).uris())


def expected(folder: Path) -> set[str]:
    return {str(path) for path in folder.rglob("*.png")}


@pytest.mark.parametrize("compacted", [False, True])
def test_photos_and_index_moved_together_need_no_build(tmp_path: Path, compacted: bool) -> None:
    paint(tmp_path / "a" / "photos", range(IMAGES))
    build(tmp_path / "a" / "photos", tmp_path / "a" / "x.diffsim")
    if compacted:
        compact(tmp_path / "a" / "x.diffsim", now=True)
    (tmp_path / "far").mkdir()
    (tmp_path / "a").rename(tmp_path / "far" / "b")
    photos, index = tmp_path / "far" / "b" / "photos", tmp_path / "far" / "b" / "x.diffsim"
    assert paths_in(index) == expected(photos)
    found = Engine.open(index).search(photos / "000.png", exhaustive=True, k=100)
    assert {result.path for result in found} == expected(photos)
    number = IndexReader(index).generation.number
    assert build(photos, index).unchanged == IMAGES
    assert IndexReader(index).generation.sources == (Source(0, str(photos), "../photos"),)
    assert build(photos, index).unchanged == IMAGES
    assert IndexReader(index).generation.number == number + 1, "the new place is written once"


@pytest.mark.parametrize("how", ["moved", "copied without times", "moved and given with another folder"])
def test_photos_moved_alone_are_known_by_their_content(
    how: str, photos: Path, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(photos, index)
    ids, new = ids_of(index), tmp_path / "elsewhere" / "pictures"
    shutil.copytree(photos, new, copy_function=shutil.copyfile if "without" in how else shutil.copy2)
    shutil.rmtree(photos)
    batches = computed(monkeypatch)
    report = build([new, paint(tmp_path / "o", ["000.png"])[0].parent] if "another" in how else new, index)
    assert batches == []
    assert (report.moved, report.removed, report.gone_elsewhere) == (IMAGES, 0, {})
    assert expected(new) <= paths_in(index)
    assert not any(path.startswith(str(photos)) for path in paths_in(index))
    assert ids_of(index).items() >= {name: number for name, number in ids.items() if name != "000.png"}.items()
    assert str(photos) not in IndexReader(index).sources.places, "a source that was emptied and is gone leaves"


def test_a_build_counts_missing_files_of_sources_that_it_was_not_given(
    photos: Path, index: Path, tmp_path: Path
) -> None:
    paint(tmp_path / "b", range(20, 23))
    build([photos, tmp_path / "b"], index)
    (tmp_path / "b" / "020.png").unlink()
    (photos / "000.png").unlink()
    assert build(photos, index).gone_elsewhere == {str(tmp_path / "b"): 1}
    shutil.rmtree(tmp_path / "b")
    assert build(photos, index).gone_elsewhere == {str(tmp_path / "b"): 3}
    states = {state.location: (state.items, state.missing, state.is_there) for state in list_sources(index).sources}
    assert states == {str(photos): (IMAGES - 1, 0, True), str(tmp_path / "b"): (3, 3, False)}


def test_a_source_is_dropped_with_its_images_and_comes_back(photos: Path, index: Path, tmp_path: Path) -> None:
    other = tmp_path / "b"
    paint(other, range(20, 23))
    (other / "bad.png").write_bytes(b"no image")
    build([photos, other], index)
    with pytest.raises(UsageError, match=r"nowhere is not a source of .*; its sources: .*photos, .*b$"):
        drop_source(index, tmp_path / "nowhere")
    assert drop_source(index, other).removed == 3
    assert IndexReader(index).sources.places == (str(photos),)
    assert len(IndexReader(index)) == IMAGES
    assert IndexReader(index).rejects() == []
    report = build([photos, other], index)
    assert (report.revived, report.items, report.rejected) == (3, IMAGES + 3, {"not_an_image": 1})
    assert len(list_sources(index).sources) == 2


def test_sources_are_relocated_with_those_below_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk, index = tmp_path / "disk", tmp_path / "i" / "x.diffsim"
    for name, first in (("one", 0), ("two", 10)):
        paint(disk / name, range(first, first + 3))
        build(disk / name, index)
    paint(tmp_path / "stays", [30])
    build(tmp_path / "stays", index)
    disk.rename(tmp_path / "new")
    with pytest.raises(UsageError, match="is not a folder"):
        relocate_sources(index, disk, disk)
    with pytest.raises(UsageError, match="is a source of the index already"):
        relocate_sources(index, disk / "one", tmp_path / "stays")
    change = relocate_sources(index, disk, tmp_path / "new")
    assert {(state.location, state.items, state.missing) for state in change.relocated} == {
        (str(tmp_path / "new" / name), 3, 0) for name in ("one", "two")
    }
    assert paths_in(index) == expected(tmp_path / "new") | expected(tmp_path / "stays")
    batches = computed(monkeypatch)
    assert build(tmp_path / "new" / "one", index).unchanged == 3
    assert batches == []


def test_files_belong_to_the_source_around_them(photos: Path, index: Path, tmp_path: Path) -> None:
    paint(photos / "deep", [30])
    build([photos / "000.png", photos / "001.png"], index)
    assert IndexReader(index).generation.sources == (Source(0, str(photos), "../photos", whole=False),)
    build([photos, photos / "deep"], index)
    assert [(s.id, s.location, s.whole) for s in IndexReader(index).generation.sources] == [(0, str(photos), True)]
    assert len(IndexReader(index)) == IMAGES + 1
    build(tmp_path, index)
    assert [s.location for s in IndexReader(index).generation.sources] == [str(photos), str(tmp_path)]
    assert len(IndexReader(index)) == IMAGES + 1


@pytest.mark.parametrize(("left", "is_refused"), [(0, True), (2, True), (3, False), (7, False)])
def test_most_of_a_source_vanishes_only_when_asked(photos: Path, index: Path, left: int, is_refused: bool) -> None:
    build(photos, index)
    vanished, aside = sorted(photos.iterdir())[left:], photos.parent / "aside"
    aside.mkdir()
    for path in vanished:
        path.rename(aside / path.name)
    paint(photos, ["new.png"])
    report = build(photos, index)
    assert report.added == 1, "the rest of the build goes on"
    if is_refused:
        assert (report.withheld, report.removed) == ({str(photos): len(vanished)}, 0)
        report = build(photos, index, replace(RUN, gone=True))
    assert (report.withheld, report.removed, report.items) == ({}, len(vanished), left + 1)
    for path in vanished:
        (aside / path.name).rename(path)
    assert build(photos, index).revived == len(vanished)


@pytest.mark.parametrize("images", [1, 4])
def test_a_source_that_is_empty_today_keeps_its_images_however_few(
    photos: Path, index: Path, tmp_path: Path, images: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    paint(tmp_path / "nas", range(50, 50 + images))
    both = [photos, tmp_path / "nas"]
    build(both, index)
    (tmp_path / "nas").rename(tmp_path / "away")
    (tmp_path / "nas").mkdir()
    report = build(both, index)
    assert (report.withheld, report.removed) == ({str(tmp_path / "nas"): images}, 0)
    (tmp_path / "nas").rmdir()
    (tmp_path / "away").rename(tmp_path / "nas")
    batches = computed(monkeypatch)
    assert build(both, index).unchanged == IMAGES + images
    assert batches == []
    for path in (tmp_path / "nas").iterdir():
        path.unlink()
    assert build(both, index, replace(RUN, gone=True)).removed == images


def test_an_empty_source_is_refused_unless_its_images_are_said_to_be_gone(photos: Path, index: Path) -> None:
    build(photos, index)
    for path in photos.iterdir():
        path.unlink()
    with pytest.raises(UsageError, match="no images in") as caught:
        build(photos, index)
    assert caught.value.advice == "remove-gone"
    assert build(photos, index, replace(RUN, gone=True)).removed == IMAGES
    assert len(IndexReader(index)) == 0


@pytest.mark.skipif(os.name == "nt", reason="names are text there")
@pytest.mark.parametrize(("stored", "asked"), [("e\u0301té.png", "été.png"), ("été.png", "e\u0301te\u0301.png")])
def test_names_fit_in_any_form_of_unicode(photos: Path, index: Path, stored: str, asked: str) -> None:
    (photos / "000.png").rename(photos / stored)
    build(photos, index)
    engine = Engine.open(index)
    for text in (asked, str(photos / asked), f"{photos}/{asked.replace('t', '?')}"):
        assert Path(engine.locate(text)) == photos / stored
