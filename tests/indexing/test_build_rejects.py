"""Images that a build can't use: they are recorded with reasons, and tried again when they change."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from index_store.reader import IndexReader
from retrieval.encoding import batches
from retrieval.errors import ImageError, RejectReason
from retrieval.images.decoding import DecodeRules, FileFacts, read_image
from retrieval.images.file_bytes import READ_ERROR
from retrieval.images.room import Room
from retrieval.search.engine import Engine
from tests.indexing.builds import (
    break_file,
    build,
    reasons_of,
    refuse_to_compute,
    touch_later,
)
from tests.support.sample_index import RUN, paint

pytestmark = pytest.mark.usefixtures("tiny")


def test_rejects_are_recorded_with_reasons_and_tried_again_only_when_asked_or_changed(
    photos: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    def counting(path: Path, rules: DecodeRules, room: Room) -> tuple[Image.Image, FileFacts]:
        tried.append(path.name)
        return read_image(path, rules, room)

    monkeypatch.setattr(batches, "read_image", counting)
    whole = (photos / "000.png").read_bytes()
    (photos / "text.png").write_bytes(b"Hello")
    (photos / "empty.png").touch()
    (photos / "cut.png").write_bytes(whole[: len(whole) // 2])
    (photos / "gone.png").symlink_to(photos / "nowhere")
    expected = {"text.png": "not_an_image", "empty.png": "empty", "cut.png": "truncated", "gone.png": "vanished"}

    report = build(photos, index)
    assert len(tried) == 15
    assert report.items == 11
    assert report.rejected == {"not_an_image": 1, "empty": 1, "truncated": 1, "vanished": 1}
    assert reasons_of(index) == expected
    assert all(reject.detail for reject in IndexReader(index).rejects())

    tried.clear()
    build(photos, index, on_progress=refuse_to_compute)
    assert tried == []

    assert build(photos, index, replace(RUN, retry_rejects=True)).rejected == report.rejected
    assert sorted(tried) == sorted(expected)

    tried.clear()
    (photos / "cut.png").write_bytes(whole)
    touch_later(photos / "text.png")
    report = build(photos, index)
    assert tried == ["text.png"], "the other one holds a known picture now"
    assert (report.items, report.added, report.rejected) == (12, 1, {"not_an_image": 1, "empty": 1, "vanished": 1})


def test_a_file_that_is_being_copied_while_it_is_read_is_tried_again(
    photos: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reject must remember the state of the file that was read, not of the one that is there a batch later."""
    victim = photos / "003.png"
    whole = victim.read_bytes()
    victim.write_bytes(whole[:50])

    def copied_meanwhile(path: Path, rules: DecodeRules, room: Room) -> tuple[Image.Image, FileFacts]:
        try:
            return read_image(path, rules, room)
        except ImageError:
            victim.write_bytes(whole)
            raise

    monkeypatch.setattr(batches, "read_image", copied_meanwhile)
    assert build(photos, index).rejected == {"truncated": 1}
    assert build(photos, index).items == 11


@pytest.mark.parametrize(("reason", "detail"), [("permission", "may not be read"), ("unreadable", f"{READ_ERROR}EIO")])
def test_what_the_system_refused_to_read_is_tried_again_though_nothing_shows_a_change(
    photos: Path, index: Path, monkeypatch: pytest.MonkeyPatch, reason: RejectReason, detail: str
) -> None:
    def refusing(path: Path, rules: DecodeRules, room: Room) -> tuple[Image.Image, FileFacts]:
        raise ImageError(reason, str(path), detail)

    with monkeypatch.context() as context:
        context.setattr(batches, "read_image", refusing)
        assert build(photos, index).rejected == {reason: 11}
    report = build(photos, index)
    assert (report.items, report.rejected) == (11, {})


@pytest.mark.parametrize("given", ["folder", "another folder"])
def test_rejects_leave_with_their_files(photos: Path, index: Path, given: str) -> None:
    for name in ("bad.png", "worse.png"):
        (photos / name).write_bytes(b"no image")
    build(photos, index)
    (photos / "bad.png").unlink()
    where = photos if given == "folder" else paint(photos.parent / "other", ["new.png"])[0].parent
    expected = {"not_an_image": 1 if given == "folder" else 2}
    assert build(where, index).rejected == expected
    number = IndexReader(index).generation.number
    assert build(where, index).rejected == expected
    assert IndexReader(index).generation.number == number
    (photos / "bad.png").write_bytes(b"no image again")
    assert build(photos, index).rejected == {"not_an_image": 2}


@pytest.mark.skipif(os.name == "nt", reason="names are text there")
def test_a_name_that_is_no_utf8_is_a_reject(photos: Path, index: Path) -> None:
    os.rename(photos / "003.png", os.fsencode(photos) + b"/\xff.png")
    assert build(photos, index).rejected == {"bad_name": 1}
    assert reasons_of(index) == {"\\xff.png": "bad_name"}
    build(photos, index, on_progress=refuse_to_compute)


def test_an_index_of_broken_images_only_is_empty_and_answers(photos: Path, index: Path) -> None:
    query = paint(photos.parent, ["query.png"])[0]
    for path in photos.iterdir():
        break_file(path)
    report = build(photos, index)
    assert (report.items, report.rejected) == (0, {"not_an_image": 11})
    build(photos, index, on_progress=refuse_to_compute)
    engine = Engine.open(index)
    assert len(engine) == 0
    for choices in ({}, {"exhaustive": True}, {"rerank": False}, {"exclude_copies": True, "min_score": 0.5}):
        assert list(engine.search(query, "style", **choices)) == []
    assert engine.info()["rejected"] == {"not_an_image": 11}
    paint(photos, range(2))
    assert build(photos, index).items == 2
    assert len(Engine.open(index).search(query, "style")) == 2
