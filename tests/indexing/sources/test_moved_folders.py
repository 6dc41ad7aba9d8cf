"""A folder that is moved after files in it were deleted or edited, with no build in between, leaves no dead items."""

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index_store.reader import IndexReader
from retrieval.indexing.sources.moved_folders import left_behind
from tests.indexing.builds import build, computed
from tests.slices import examples
from tests.support.sample_index import paint

pytestmark = pytest.mark.usefixtures("tiny")
IMAGES = 8
NAMES = ["a/000.png", "a/001.png", "a/deep/002.png", "b/003.png", "b/004.png", "b/005.png"]


def items_of(index: Path) -> set[str]:
    return set(IndexReader(index).uris())


def files_in(folder: Path) -> set[str]:
    return {str(path) for path in folder.rglob("*.png")}


@pytest.mark.parametrize("lost", [1, 4])
def test_files_deleted_before_their_folder_moves_leave_the_index(
    lost: int, photos: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(photos, index)
    for number in range(lost):
        (photos / f"00{number}.png").unlink()
    moved = photos.rename(photos.parent / "elsewhere")
    batches = computed(monkeypatch)
    report = build(moved, index)
    assert (report.moved, report.removed, report.gone_elsewhere) == (IMAGES - lost, lost, {})
    assert batches == []
    assert items_of(index) == files_in(moved)
    assert list(IndexReader(index).sources.places) == [str(moved)], "the old source is empty, so it goes"


def test_of_two_copies_the_deleted_one_leaves(photos: Path, index: Path) -> None:
    shutil.copy(photos / "000.png", photos / "copy.png")
    build(photos, index)
    (photos / "000.png").unlink()
    moved = photos.rename(photos.parent / "elsewhere")
    assert build(moved, index).removed == 1
    assert items_of(index) == files_in(moved)


def test_a_few_files_copied_from_a_disk_that_is_gone_take_no_others_away(photos: Path, index: Path) -> None:
    build(photos, index)
    some = photos.parent / "some"
    some.mkdir()
    for number in range(3):
        shutil.copy(photos / f"00{number}.png", some)
    photos.rename(photos.parent / "unplugged")
    report = build(some, index)
    assert (report.removed, report.gone_elsewhere) == (0, {str(photos): IMAGES - 3})


def test_files_moved_out_of_a_folder_that_stays_take_no_others_away(photos: Path, index: Path) -> None:
    build(photos, index)
    (photos.parent / "other").mkdir()
    for number in range(6):
        (photos / f"00{number}.png").rename(photos.parent / "other" / f"00{number}.png")
    (photos / "007.png").unlink()
    report = build(photos.parent / "other", index)
    assert (report.removed, report.gone_elsewhere) == (0, {str(photos): 1})


def test_a_file_that_could_not_have_been_seen_is_not_lost(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    moved = {str(old / name): str(new / name) for name in NAMES[:5]}
    assert left_behind(moved, [str(old / NAMES[5])], lambda path: True) == [str(old / NAMES[5])]
    assert left_behind(moved, [str(old / NAMES[5])], lambda path: "/b/" not in path) == []
    old.mkdir()
    assert left_behind({**moved, str(old / "x"): str(new / "x")}, [str(old / "y")], lambda path: True) == []


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[tuple[str, str, str]], str]:
    """Deletions, edits, copies and renames, and which folder moves then: all of it, or one of its folders."""
    steps = st.tuples(st.sampled_from(["delete", "edit", "copy", "rename"]), *[st.sampled_from(NAMES)] * 2)
    return draw(st.lists(steps, max_size=4)), draw(st.sampled_from([".", "a", "b", "a/deep"]))


def play(photos: Path, steps: list[tuple[str, str, str]]) -> None:
    for number, (step, name, other) in enumerate(steps):
        file, target = photos / name, (photos / other).with_name(f"{number}.png")
        if not file.exists():
            continue
        if step == "delete":
            file.unlink()
        elif step == "edit":
            paint(file.parent, [file.name], seed=1 + number)
        elif step == "copy":
            shutil.copy(file, target)
        else:
            file.rename(target)


@settings(max_examples=examples(32))
@given(histories())
def test_any_changes_before_a_move_leave_exactly_the_files(history: tuple[list[tuple[str, str, str]], str]) -> None:
    steps, which = history
    with tempfile.TemporaryDirectory() as name:
        home = Path(name).resolve()
        photos, index = home / "photos", home / "x.diffsim"
        for file in NAMES:
            paint((photos / file).parent, [Path(file).name])
        build(photos, index)
        before = {photos / file: (photos / file).read_bytes() for file in NAMES}
        play(photos, steps)
        kept = {path for path, data in before.items() if path.exists() and path.read_bytes() == data}
        moved = (photos / which).rename(home / "moved")
        if not any(moved.rglob("*.png")):
            return
        report = build(moved, index)
        dead = {uri for uri in items_of(index) if not Path(uri).exists()}
        assert files_in(moved) <= items_of(index)
        inside = {path for path in before if path.is_relative_to(photos / which)}
        if 2 * len(kept & inside) >= len(inside):
            assert not {uri for uri in dead if Path(uri).is_relative_to(photos / which)}
        assert build(moved, index).added == 0, report
