"""Builds: what is computed, what is kept, and what is refused. Most run a model of a few numbers."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from index_store.layout import Layout
from index_store.reader import IndexReader
from retrieval.encoding import batches as ingest
from retrieval.errors import ImageError, IndexCorruptError, IndexIncompatibleError, IndexLockedError, UsageError
from retrieval.images.decoding import DecodeRules, FileFacts, read_image
from retrieval.indexing.build import build_index
from retrieval.indexing.reports import BuildEvent, BuildReport
from retrieval.search.engine import Engine
from retrieval.settings import BuildSettings, EngineSettings
from tests.support.paths import DATA
from tests.support.sample_index import RUN, Contents, paint
from tests.support.stub_models import tiny_model

TINY_SD15 = DATA / "tiny_sd15"
REAL = BuildSettings(device="cpu", batch_size=4, workers=1, segment_rows=8)


@pytest.fixture(autouse=True)
def no_flushing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare the disk: no test here is about a power failure."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def tiny() -> Iterator[None]:
    with tiny_model():
        yield


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Eleven images: two segments of four, and three more."""
    paint(tmp_path / "photos", range(11))
    return tmp_path / "photos"


@pytest.fixture
def index(tmp_path: Path) -> Path:
    return tmp_path / "photos.diffsim"


def build(photos: Path, index: Path, run: BuildSettings = RUN, **choices: Any) -> BuildReport:
    return build_index(photos, index, run=run, **{"model": "mini", "modes": ["style", "semantic"], **choices})


def real_build(photos: Path, index: Path, run: BuildSettings = REAL, **choices: Any) -> BuildReport:
    return build(photos, index, run, **{"modes": ["style"], **choices})


def ids_of(index: Path) -> dict[str, int]:
    return {Path(item.uri).name: item.id for item in IndexReader(index).items()}


def reasons_of(index: Path) -> dict[str, str]:
    return {Path(reject.uri).name: reject.reason for reject in IndexReader(index).rejects()}


def touch_later(path: Path) -> None:
    """Move the time of change on by an hour, since a clock's tick may be longer than a test."""
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 3600 * 10**9))


def break_file(path: Path) -> None:
    path.write_bytes(b"no image")
    touch_later(path)


def files_of(index: Path) -> dict[str, tuple[int, int]]:
    """Every file but the lock, with what changes when it is written."""
    files = [path for path in index.rglob("*") if path.is_file() and path.name != "LOCK"]
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


def refuse_to_compute(event: BuildEvent) -> None:
    assert event.kind in ("planned", "model"), f"computed: {event}"


def stop_at(kind: str, number: int) -> Any:
    """Return an ``on_event`` that interrupts the build at the n-th event of a kind."""
    left = [None] * number

    def on_event(event: BuildEvent) -> None:
        if event.kind == kind and left:
            left.pop()
            if not left:
                raise KeyboardInterrupt

    return on_event


# --- Stopped and resumed


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(
    ("kind", "count"), [("planned", 1), ("model", 1), ("loaded", 1), ("batch", 6), ("committed", 3)]
)
def test_a_build_interrupted_at_any_event_keeps_what_it_has_and_resumes_to_the_same_index(
    photos: Path, tmp_path: Path, kind: str, count: int
) -> None:
    break_file(photos / "004.png")
    build(photos, tmp_path / "whole.diffsim")
    whole = Contents.of(tmp_path / "whole.diffsim")
    for number in range(1, count + 1):
        index = tmp_path / f"{number}.diffsim"
        with pytest.raises(KeyboardInterrupt):
            build(photos, index, on_event=stop_at(kind, number))
        if kind in ("batch", "committed"):
            kept = Contents.of(index)
            assert len(kept.items) + len(kept.rejects) == min({"batch": 2, "committed": 4}[kind] * number, 11)
            assert kept.differences(replace(whole.first(len(kept.items)), rejects=kept.rejects)) == []
        assert build(photos, index).items == 10
        assert Contents.of(index).differences(whole) == [], f"interrupted at {kind} {number}"
        build(photos, index, on_event=refuse_to_compute)


@pytest.mark.usefixtures("tiny")
def test_a_build_interrupted_after_every_batch_gets_one_batch_further_each_time(photos: Path, tmp_path: Path) -> None:
    build(photos, tmp_path / "whole.diffsim")
    for runs in range(1, 7):
        with pytest.raises(KeyboardInterrupt):
            build(photos, tmp_path / "stopped.diffsim", on_event=stop_at("batch", 1))
        assert len(IndexReader(tmp_path / "stopped.diffsim")) == min(2 * runs, 11)
    build(photos, tmp_path / "stopped.diffsim", on_event=refuse_to_compute)
    whole = Contents.of(tmp_path / "whole.diffsim")
    assert Contents.of(tmp_path / "stopped.diffsim").differences(whole) == []


def test_the_embedded_model_computes_the_same_bits_after_an_interruption(photos: Path, tmp_path: Path) -> None:
    real_build(photos, tmp_path / "whole.diffsim")
    for number in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            real_build(photos, tmp_path / "stopped.diffsim", on_event=stop_at("batch", number))
    real_build(photos, tmp_path / "stopped.diffsim")
    whole = Contents.of(tmp_path / "whole.diffsim")
    assert len(whole.items) == 11
    assert Contents.of(tmp_path / "stopped.diffsim").differences(whole) == []


@pytest.mark.usefixtures("tiny")
def test_segments_are_committed_by_size_or_by_age(photos: Path, tmp_path: Path) -> None:
    """How the rows are cut into segments changes nothing that is read."""
    rows = {}
    for name, run in (
        ("size", RUN),
        ("age", replace(RUN, commit_seconds=0.0)),
        ("one", replace(RUN, segment_rows=1000)),
        ("small", replace(RUN, segment_rows=1, batch_size=1)),
    ):
        build(photos, tmp_path / f"{name}.diffsim", run)
        reader = IndexReader(tmp_path / f"{name}.diffsim")
        rows[name] = [segment.rows for segment in reader.generation.segments]
        assert Contents.of(tmp_path / f"{name}.diffsim").differences(Contents.of(tmp_path / "size.diffsim")) == []
    assert rows == {"size": [4, 4, 3], "age": [2, 2, 2, 2, 2, 1], "one": [11], "small": [1] * 11}


@pytest.mark.usefixtures("tiny")
def test_what_a_killed_writer_left_is_cleared_by_the_next_one(photos: Path, index: Path) -> None:
    build(photos, index)
    before, files = Contents.of(index), files_of(index)
    layout = Layout(index)
    shutil.copytree(layout.segment("000002"), layout.segment("000005"))
    shutil.copytree(layout.attention("style", "000002"), layout.attention("style", "000005"))
    layout.segment("000077").mkdir()
    assert Contents.of(index) == before
    build(photos, index, on_event=refuse_to_compute)
    assert files_of(index) == files
    paint(photos, [11])
    build(photos, index)
    assert Contents.of(index).first(11) == before


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("left", ["LOCK", "generations/.000001.json.tmp", "generations/000001.json", ".CURRENT.tmp"])
def test_a_build_killed_before_its_first_commit_starts_anew(photos: Path, index: Path, left: str) -> None:
    (index / "generations").mkdir(parents=True)
    (index / "LOCK").touch()
    (index / left).write_bytes(b"{")
    if left == "LOCK":
        (index / "generations").rmdir()
    assert build(photos, index).items == 11
    assert len(IndexReader(index)) == 11


# --- Brought up to date


@pytest.mark.usefixtures("tiny")
def test_nothing_to_do_computes_and_writes_nothing(photos: Path, index: Path) -> None:
    first = build(photos, index)
    assert (first.items, first.added, first.replaced, first.unchanged) == (11, 11, 0, 0)
    files = files_of(index)
    again = build(photos, index, on_event=refuse_to_compute)
    assert files_of(index) == files
    assert (again.items, again.added, again.replaced, again.unchanged) == (11, 0, 0, 11)
    assert again.to_dict()["schema"] == 1


@pytest.mark.usefixtures("tiny")
def test_new_files_are_added_behind_the_old_ones(photos: Path, index: Path) -> None:
    build(photos, index)
    before, files = Contents.of(index), files_of(index)
    paint(photos, ["000a.png", "zzz.png"])
    report = build(photos, index)
    assert (report.items, report.added, report.unchanged) == (13, 2, 11)
    assert ids_of(index)["000a.png"] == 11
    assert ids_of(index)["zzz.png"] == 12
    assert Contents.of(index).first(11) == before
    assert {path: state for path, state in files_of(index).items() if path in files and "CURRENT" not in path} == {
        path: state for path, state in files.items() if "CURRENT" not in path
    }, "committed files are never written again"


@pytest.mark.usefixtures("tiny")
def test_a_changed_file_replaces_its_old_row_and_ids_are_never_reused(photos: Path, index: Path) -> None:
    build(photos, index)
    victim = photos / "010.png"  # the last id
    for round_number in range(1, 4):
        paint(photos, ["010.png"], seed=round_number)
        os.utime(victim, ns=(0, round_number * 10**9))
        report = build(photos, index)
        assert (report.items, report.added, report.replaced, report.unchanged) == (11, 1, 1, 10)
        assert ids_of(index) == {f"{number:03d}.png": number for number in range(10)} | {"010.png": 10 + round_number}
        results = Engine.open(index).search(victim, "style", exhaustive=True, k=100)
        assert sorted(result.id for result in results) == [*range(10), 10 + round_number]
        assert results[0].id == 10 + round_number
        assert results[0].score == pytest.approx(1, abs=1e-3)
    assert IndexReader(index).generation.tombstones == (10, 11, 12)


@pytest.mark.usefixtures("tiny")
def test_a_file_is_changed_when_its_bytes_are_others_whatever_its_size_and_time(photos: Path, index: Path) -> None:
    build(photos, index)
    before = Contents.of(index)
    same, longer, other = (photos / name for name in ("003.png", "005.png", "007.png"))
    touch_later(same)
    status = longer.stat()
    with longer.open("ab") as file:
        file.write(b"\0")
    os.utime(longer, ns=(status.st_atime_ns, status.st_mtime_ns))
    content = bytearray(other.read_bytes())
    content[-1] ^= 1  # in the last checksum, which decoders pass over
    other.write_bytes(content)
    touch_later(other)
    report = build(photos, index)
    assert (report.items, report.moved, report.replaced) == (11, 1, 2)
    assert [ids_of(index)[path.name] for path in (same, longer, other)] == [3, 11, 12]
    assert [row for row in Contents.of(index).tensors["style/q"] if row not in before.tensors["style/q"]] == []
    build(photos, index, on_event=refuse_to_compute)


@pytest.mark.usefixtures("tiny")
def test_a_file_that_broke_is_no_item_any_more_and_comes_back_when_mended(photos: Path, index: Path) -> None:
    build(photos, index)
    break_file(photos / "003.png")
    report = build(photos, index)
    assert (report.items, report.added, report.replaced) == (10, 0, 0)
    assert reasons_of(index) == {"003.png": "not_an_image"}
    build(photos, index, on_event=refuse_to_compute)
    paint(photos, [3])
    assert build(photos, index).added == 1
    assert ids_of(index)["003.png"] == 11
    assert reasons_of(index) == {}


# --- Images that can't be used


@pytest.mark.usefixtures("tiny")
def test_rejects_are_recorded_with_reasons_and_tried_again_only_when_asked_or_changed(
    photos: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    def counting(path: Path, rules: DecodeRules) -> tuple[Image.Image, FileFacts]:
        tried.append(path.name)
        return read_image(path, rules)

    monkeypatch.setattr(ingest, "read_image", counting)
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
    build(photos, index, on_event=refuse_to_compute)
    assert tried == []

    assert build(photos, index, replace(RUN, retry_rejects=True)).rejected == report.rejected
    assert sorted(tried) == sorted(expected)

    tried.clear()
    (photos / "cut.png").write_bytes(whole)
    touch_later(photos / "text.png")
    report = build(photos, index)
    assert sorted(tried) == ["cut.png", "text.png"]
    assert (report.items, report.added, report.rejected) == (12, 1, {"not_an_image": 1, "empty": 1, "vanished": 1})


@pytest.mark.usefixtures("tiny")
def test_a_file_that_is_being_copied_while_it_is_read_is_tried_again(
    photos: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reject must remember the state of the file that was read, not of the one that is there a batch later."""
    victim = photos / "003.png"
    whole = victim.read_bytes()
    victim.write_bytes(whole[:50])

    def copied_meanwhile(path: Path, rules: DecodeRules) -> tuple[Image.Image, FileFacts]:
        try:
            return read_image(path, rules)
        except ImageError:
            victim.write_bytes(whole)
            raise

    monkeypatch.setattr(ingest, "read_image", copied_meanwhile)
    assert build(photos, index).rejected == {"truncated": 1}
    assert build(photos, index).items == 11


@pytest.mark.usefixtures("tiny")
@pytest.mark.skipif(os.name == "nt", reason="names are text there")
def test_a_name_that_is_no_utf8_is_a_reject(photos: Path, index: Path) -> None:
    os.rename(photos / "003.png", os.fsencode(photos) + b"/\xff.png")
    assert build(photos, index).rejected == {"bad_name": 1}
    assert reasons_of(index) == {"\\xff.png": "bad_name"}
    build(photos, index, on_event=refuse_to_compute)


@pytest.mark.usefixtures("tiny")
def test_an_index_of_broken_images_only_is_empty_and_answers(photos: Path, index: Path) -> None:
    query = paint(photos.parent, ["query.png"])[0]
    for path in photos.iterdir():
        break_file(path)
    report = build(photos, index)
    assert (report.items, report.rejected) == (0, {"not_an_image": 11})
    build(photos, index, on_event=refuse_to_compute)
    engine = Engine.open(index)
    assert len(engine) == 0
    for choices in ({}, {"exhaustive": True}, {"rerank": False}, {"exclude_query": True, "min_score": 0.5}):
        assert list(engine.search(query, "style", **choices)) == []
    assert engine.info()["rejected"] == {"not_an_image": 11}
    paint(photos, range(2))
    assert build(photos, index).items == 2
    assert len(Engine.open(index).search(query, "style")) == 2


# --- Requests that make no sense


@pytest.mark.usefixtures("tiny")
def test_a_folder_without_images_or_that_is_not_there_is_refused(tmp_path: Path, index: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(UsageError, match="no images in"):
        build(tmp_path / "photos", index)
    with pytest.raises(UsageError, match="nowhere does not exist"):
        build(tmp_path / "nowhere", index)
    assert not index.exists()


@pytest.mark.usefixtures("tiny")
def test_a_place_that_is_no_index_is_left_alone(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.txt").write_text("years of work")
    (tmp_path / "file").write_text("years of work")
    for name in ("thesis", "file"):
        before = files_of(tmp_path)
        with pytest.raises(UsageError, match="is no index"):
            build(photos, tmp_path / name)
        assert files_of(tmp_path) == before
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["chapter1.txt"]
    (tmp_path / "empty").mkdir()
    assert build(photos, tmp_path / "empty").items == 11


@pytest.mark.usefixtures("tiny")
def test_a_refused_request_can_be_put_right(photos: Path, index: Path) -> None:
    with pytest.raises(UsageError, match="unknown mode 'stile'"):
        build(photos, index, modes=["stile"])
    assert build(photos, index).items == 11


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("kind", ["planned", "loaded", "batch", "committed"])
def test_a_second_build_is_refused_and_does_not_disturb_the_first(photos: Path, index: Path, kind: str) -> None:
    refused = []

    def another_build(event: BuildEvent) -> None:
        if event.kind == kind and not refused:
            for _ in range(2):
                with pytest.raises(IndexLockedError):
                    build(photos, index)
            refused.append(event)

    assert build(photos, index, on_event=another_build).items == 11
    assert refused
    assert len(Contents.of(index).items) == 11


@pytest.mark.usefixtures("tiny")
def test_a_lost_current_is_never_taken_for_a_new_index(photos: Path, index: Path) -> None:
    build(photos, index)
    before = Contents.of(index)
    Layout(index).current.unlink()
    files = files_of(index)
    with pytest.raises(IndexCorruptError, match=r"CURRENT is missing.*000004\.json"):
        build(photos, index)
    assert files_of(index) == files
    Layout(index).current.write_text("000004.json")
    assert Contents.of(index) == before


# --- One index, one meaning


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"model": "sd15"}, "model: mini in the index, sd15 asked for"),
        ({"image_size": 128}, "image_size: 144 in the index, 128 asked for"),
        ({"parity": "published"}, "parity: sound in the index, published asked for"),
        ({"alpha": "drop"}, "alpha: white in the index, drop asked for"),
        ({"encoders": {}}, "encoders: descriptor in the index, none asked for"),
        ({"image_size": 64, "alpha": "drop"}, "alpha: white in the index, drop asked for; image_size: 144"),
    ],
    ids=str,
)
def test_other_choices_than_the_indexs_are_refused_with_both_sides(
    photos: Path, index: Path, choices: dict[str, Any], message: str
) -> None:
    build(photos, index)
    paint(photos, [11])
    files = files_of(index)
    with pytest.raises(IndexIncompatibleError) as caught:
        build(photos, index, **choices)
    assert message in str(caught.value)
    assert str(index) in str(caught.value)
    assert files_of(index) == files


@pytest.mark.usefixtures("tiny")
def test_a_mode_that_the_index_lacks_is_refused_by_a_search(photos: Path, index: Path) -> None:
    build(photos, index)
    with pytest.raises(
        IndexIncompatibleError, match=r"built for style, semantic, not for instance; add .* --modes inst"
    ):
        Engine.open(index).search(photos / "000.png", "instance")
    with pytest.raises(UsageError, match="unknown mode 'stile'"):
        Engine.open(index).search(photos / "000.png", "stile")


def test_choices_that_are_left_out_are_the_indexs_own(photos: Path, tmp_path: Path) -> None:
    own = {"seed": 7, "image_size": 64, "alpha": "drop", "modes": ["semantic"], "noise": "pairwise"}
    real_build(photos, tmp_path / "whole.diffsim", **own)
    some = paint(tmp_path / "some", [0, 1])  # elsewhere, so that only tensors can be compared
    index = tmp_path / "grown.diffsim"
    build_index(some, index, model="mini", run=REAL, **own)
    build_index(photos, index, run=REAL)
    whole, grown = Contents.of(tmp_path / "whole.diffsim"), Contents.of(index)
    assert list(grown.tensors) == list(whole.tensors) == ["semantic/q", "semantic/k", "semantic/v"]
    for name, rows in whole.tensors.items():
        assert grown.tensors[name][2:] == rows
    other = tmp_path / "other.diffsim"
    real_build(photos, other, **{**own, "image_size": 80})
    assert Contents.of(other).tensors != whole.tensors, "the size means something"


def test_other_weights_are_refused_wherever_they_lie(photos: Path, tmp_path: Path) -> None:
    index, own, copied, other = (tmp_path / name for name in ("x.diffsim", "own", "copied", "other"))
    for folder in (own, copied, other):
        shutil.copytree(TINY_SD15, folder)
    (file,) = (other / "unet").glob("*.safetensors")
    tensors = load_file(file)
    tensors[next(iter(tensors))][0] += 0.5
    save_file(tensors, file)

    sd15 = {"model": "sd15", "image_size": 64, "encoders": {"descriptor": None}}
    assert real_build(photos, index, weights=str(own), **sd15).items == 11
    query = paint(photos, [11])[0]
    both = r"model\.weights: [0-9a-f]{12}\.\.\. in the index, [0-9a-f]{12}\.\.\. asked for"
    with pytest.raises(IndexIncompatibleError, match=both):
        real_build(photos, index, weights=str(other), **sd15)
    with pytest.raises(IndexIncompatibleError, match=both):
        Engine.open(index, EngineSettings(device="cpu", weights=str(other))).search(query, "style")
    assert real_build(photos, index, weights=str(copied), **sd15).items == 12, "the same weights in another place"
    assert len(Engine.open(index, EngineSettings(device="cpu", weights=str(copied))).search(query, "style")) == 10

    shutil.copy(file, own / "unet")
    with pytest.raises(IndexIncompatibleError, match=both):
        Engine.open(index, EngineSettings(device="cpu")).search(query, "style")


def test_weights_for_a_model_that_has_none_are_refused(photos: Path, index: Path) -> None:
    none = f"mini has no weights: leave out the folder {TINY_SD15}"
    with pytest.raises(UsageError, match=none):
        real_build(photos, index, weights=str(TINY_SD15))
    assert not index.exists()
    real_build(photos, index)
    with pytest.raises(UsageError, match=none):
        Engine.open(index, EngineSettings(device="cpu", weights=str(TINY_SD15))).search(photos / "000.png", "style")


def test_the_batch_size_does_not_change_scores(photos: Path, tmp_path: Path) -> None:
    scores = []
    for size in (1, 3, 4, 11):
        index = tmp_path / f"{size}.diffsim"
        real_build(photos, index, replace(REAL, batch_size=size, segment_rows=100))
        results = Engine.open(index, EngineSettings(device="cpu")).search(
            photos / "002.png", "style", exhaustive=True, k=11
        )
        scores.append([result.score for result in sorted(results, key=lambda result: result.id)])
    assert len(scores[0]) == 11
    np.testing.assert_allclose(scores, [scores[0]] * 4, rtol=0, atol=1e-5)
