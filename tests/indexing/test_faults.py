"""Full disks, Ctrl-C anywhere, power failures and damaged files: an index gives the truth or an error, nothing else."""

import errno
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cli.advice import sentence_of
from index_store.generation import read_current
from index_store.layout import Layout
from index_store.reader import IndexReader
from retrieval.errors import NoSpaceError
from retrieval.indexing.build import build_index
from retrieval.indexing.estimate import CATALOGUE_BYTES
from retrieval.indexing.reports import BuildEvent, BuildReport
from retrieval.indexing.upkeep.repairing import verify as find_damages
from tests.slices import EVERY
from tests.support.faults import Operations, path_of, place_of
from tests.support.sample_index import RUN, Contents, paint
from tests.support.stub_models import TinyExtractor, load_tiny


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three images and a reject: two segments of two."""
    folder = tmp_path_factory.mktemp("faults") / "photos"
    paint(folder, range(4))
    (folder / "001.png").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def whole(photos: Path) -> Contents:
    """What an undisturbed build gives."""
    build(photos, photos.parent / "whole.diffsim")
    return Contents.of(photos.parent / "whole.diffsim")


def build(photos: Path, index: Path, on_progress: Callable[[BuildEvent], None] = lambda event: None) -> BuildReport:
    """Store Q, K and V: three arrays a mode are more writes to stop at."""
    run, codec = replace(RUN, segment_rows=2), "qkv-float16"
    return build_index(
        photos, index, model="cells", modes=["style"], codec=codec, run=run, on_progress=on_progress, load=load_tiny
    )


def add(photos: Path, index: Path) -> BuildReport:
    """Add a mode, and the encoder that it needs, to an index."""
    return build_index(photos, index, modes=["instance"], run=replace(RUN, segment_rows=2), load=load_tiny)


def run_out_of_space() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def interrupt() -> None:
    raise KeyboardInterrupt


def assert_partial(index: Path, whole: Contents, segments: int) -> None:
    """Assert that the index holds the first batches of ``whole``, in as many segments or one more."""
    if not Layout(index).current.exists():
        assert segments == 0
        return
    kept = Contents.of(index)
    assert segments <= len(IndexReader(index).generation.segments) <= segments + 1
    assert (len(kept.items) + len(kept.rejects)) % 2 == 0, "a batch counts as a whole or not at all"
    assert kept.differences(replace(whole.first(len(kept.items)), rejects=whole.rejects[: len(kept.rejects)])) == []


# --- The disk is full, or the user has had enough


def step_of(least: int) -> int:
    """Return every how many operations to stop: ``least``, or three times as many in a quick run."""
    return least if EVERY else 3 * least


@pytest.mark.parametrize(("act", "step"), [(run_out_of_space, step_of(5)), (interrupt, step_of(3))])
def test_a_build_stopped_at_any_write_keeps_what_was_committed_and_resumes(
    photos: Path, whole: Contents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: Callable[[], None], step: int
) -> None:
    """A full disk hits any thread, Ctrl-C only the main one."""
    only_main = act is interrupt
    with Operations(tmp_path, 0, act, only_main=only_main).watched() as undisturbed:
        build(photos, tmp_path / "undisturbed")
    outcomes: Counter[str] = Counter()
    for number in range(1, undisturbed.count + 1, step):
        index = tmp_path / f"{number}.diffsim"
        events: Counter[str] = Counter()
        with (
            suppress(KeyboardInterrupt, NoSpaceError),
            Operations(tmp_path, number, act, only_main=only_main).watched(),
        ):
            build(photos, index, lambda event, events=events: events.update([event.stage]))
            outcomes["went on"] += 1
        assert_partial(index, whole, events["commit"])
        build(photos, index)
        assert Contents.of(index).differences(whole) == [], f"stopped at operation {number}"
        shutil.rmtree(index)
        outcomes["stopped"] += 1
    assert outcomes["stopped"] > (30 if EVERY else 10)
    assert outcomes["went on"] < 0.2 * outcomes["stopped"], "some folders were there already; nothing else went on"


@pytest.mark.parametrize(("act", "step"), [(run_out_of_space, step_of(17)), (interrupt, step_of(11))])
@pytest.mark.thorough
def test_an_addition_stopped_at_any_write_keeps_what_was_there_and_resumes(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: Callable[[], None], step: int
) -> None:
    only_main = act is interrupt
    base, added, index = tmp_path / "base.diffsim", tmp_path / "added.diffsim", tmp_path / "x.diffsim"
    build(photos, base)
    shutil.copytree(base, added)
    with Operations(added, 0, act, only_main=only_main).watched() as undisturbed:
        add(photos, added)
    before, after = Contents.of(base), Contents.of(added)
    assert list(after.vectors) == ["descriptor", "subject"]
    for number in range(1, undisturbed.count + 1, step):
        shutil.copytree(base, index)
        with suppress(KeyboardInterrupt, NoSpaceError), Operations(index, number, act, only_main=only_main).watched():
            add(photos, index)
        reader = IndexReader(index)
        assert reader.items() == before.items
        style = reader.attention("style", range(len(reader)))
        assert [row.tobytes() for row in style["q"]] == before.tensors["style/q"]
        if "instance" in reader.generation.modes:
            rows = [row for row, has in enumerate(reader.has_tensors("instance")) if has]
            there = reader.attention("instance", rows)["v"] if rows else []
            assert [row.tobytes() for row in there] == [after.tensors["instance/v"][row] for row in rows]
        assert find_damages(index) == []
        add(photos, index)
        assert Contents.of(index).differences(after) == [], f"stopped at operation {number}"
        shutil.rmtree(index)
    assert undisturbed.count > 60


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 4 MB; where none may be mounted, the test is skipped."""
    place = tmp_path / "disk"
    place.mkdir()
    if shutil.which("mount") is None:
        pytest.skip("there is no mount")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("mounting needs root")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_a_disk_that_fills_up_keeps_what_was_committed(photos: Path, whole: Contents, small_disk: Path) -> None:
    index, filler = small_disk / "x.diffsim", small_disk / "filler"

    def fill_up(event: BuildEvent) -> None:
        if event.stage == "commit":  # someone else takes the rest of the disk
            with suppress(OSError), filler.open("wb") as file:
                while True:
                    file.write(bytes(4096))
                    file.flush()

    with pytest.raises(NoSpaceError, match="committed is intact"):
        build(photos, index, fill_up)
    assert len(IndexReader(index).generation.segments) == 1
    assert_partial(index, whole, 1)
    filler.unlink()
    build(photos, index)
    assert Contents.of(index).differences(whole) == []


def test_ctrl_c_while_the_model_works_does_not_split_a_batch(
    photos: Path, whole: Contents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first batch has a reject: it must not be recorded without the image beside it."""
    monkeypatch.setattr(TinyExtractor, "extract", lambda *arguments: interrupt())
    with pytest.raises(KeyboardInterrupt):
        build(photos, tmp_path / "x.diffsim")
    assert Contents.of(tmp_path / "x.diffsim") == whole.first(0)


@pytest.mark.parametrize("first_is_broken", [False, True])
def test_a_build_that_cannot_fit_stops_before_anything_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first_is_broken: bool
) -> None:
    """One image is 1152 bytes of tensors, 32 of vectors and some of the catalogue here; rejects are not known yet."""
    paint(tmp_path / "photos", range(6))
    if first_is_broken:
        for name in ("000.png", "001.png"):
            (tmp_path / "photos" / name).write_bytes(f"a whole batch of rejects: {name}".encode())
    index = tmp_path / "x.diffsim"
    needed = (3 * 2 * 192 + 2 * 48 + CATALOGUE_BYTES) * 6
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=needed - 1))
    with pytest.raises(NoSpaceError, match=r"would grow by .* are free") as caught:
        build(tmp_path / "photos", index)
    assert "are free; --codec hidden-float16 would fit" in sentence_of(caught.value)
    assert not index.exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=needed))
    assert build(tmp_path / "photos", index).items == (4 if first_is_broken else 6)


# --- The power fails


def test_everything_is_on_the_disk_before_current_names_it(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every commit each named file was flushed as it is, and each folder when it already had its entries."""
    flushed: dict[Path, object] = {}
    own_fsync, own_replace = os.fsync, os.replace
    commits = 0

    def state(path: Path) -> object:
        return frozenset(os.listdir(path)) if path.is_dir() else path.read_bytes()

    def fsync(descriptor: int) -> None:
        path = path_of(descriptor)
        flushed[path] = state(path)
        own_fsync(descriptor)

    def replace_checked(old: Any, new: Any, **folders: Any) -> None:
        nonlocal commits
        source, target = place_of(old, folders.get("src_dir_fd")), place_of(new, folders.get("dst_dir_fd"))
        own_replace(old, new, **folders)
        if source in flushed:
            flushed[target] = flushed.pop(source)
        if target.name == "CURRENT":
            commits += 1
            layout = Layout(target.parent)
            generation = read_current(layout)
            needed = [layout.current, layout.generation(generation.number)]
            for segment in generation.segments:
                trees = [layout.segment(segment.name), *(layout.attention(m, segment.name) for m in segment.attention)]
                needed += [path for tree in trees for path in tree.rglob("*")]
            for path in needed:
                assert path.is_dir() or flushed[path] == state(path), f"{path} was not flushed"
                while path != layout.root and path != layout.current:
                    assert path.name in flushed[path.parent], f"{path.parent} was not flushed with {path.name}"
                    path = path.parent

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace_checked)
    build(photos, tmp_path / "x.diffsim")
    assert commits == 3
    add(photos, tmp_path / "x.diffsim")
    assert commits == 6, "the mode is listed, then two segments are filled"
    assert "CURRENT" in flushed[tmp_path / "x.diffsim"], "the commit itself is flushed before the build says done"
