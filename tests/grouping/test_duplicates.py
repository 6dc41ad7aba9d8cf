"""Copies are found, described and offered; other pictures, references and lost files are not offered."""

import shutil
from pathlib import Path

import pytest

from retrieval import Cancellation, Duplicates, DuplicateSettings, build_index, find_duplicates
from retrieval.errors import CancelledError, UsageError
from retrieval.grouping.results import Group


def names(group: Group) -> set[str]:
    return {Path(member.path).stem for member in group.members}


def same(found: Duplicates) -> list[Group]:
    return [group for group in found.groups if group.level == "same"]


@pytest.fixture(scope="module")
def found(copies_index: Path) -> Duplicates:
    return find_duplicates(copies_index)


def test_copies_are_grouped_around_the_best_of_them(found: Duplicates) -> None:
    groups = {Path(group.kept.path).stem: group for group in same(found)}
    assert {kept: names(group) for kept, group in groups.items()} == {
        "one": {"one", "one-crop", "one-border", "one-mirrored", "one-turned"},
        "two": {"two", "two-third", "two-again", "two-format"},
        "three": {"three", "three-bytes"},
    }
    assert all(len(group.offered) == len(group.members) - 1 for group in groups.values())
    assert len(found.offered) == 8


def test_every_copy_says_how_it_was_changed(found: Duplicates) -> None:
    said = {Path(member.path).stem: member.changes for group in same(found) for member in group.members}
    assert said["one-mirrored"] == ("mirrored",)
    assert said["one-turned"][0] in ("turned left", "turned right")
    assert said["one-crop"][0].startswith("crop to 6")
    assert said["one-border"] == ("border",)
    assert said["two-third"] == ("smaller",)
    assert said["two-format"] == ("encoded again",)
    assert said["three-bytes"] == ("identical bytes",)
    assert said["one"] == ()
    assert all(group.reason.startswith("it ") for group in same(found))


def test_json_has_every_group_with_the_ids_on_offer(found: Duplicates) -> None:
    values = found.to_dict()
    assert (values["schema"], values["images"], values["mode"]) == (1, 20, "instance")
    assert values["offered"]["images"] == 8
    assert values["offered"]["bytes"] == sum(Path(member.path).stat().st_size for member in found.offered)
    for group in values["groups"]:
        assert group["members"][0]["is_kept"]
        assert set(group["offered"]) < {member["id"] for member in group["members"]}


def test_references_are_kept_and_copies_elsewhere_are_offered(copies_index: Path, pictures: Path) -> None:
    found = find_duplicates(copies_index, DuplicateSettings(references=(str(pictures / "west"),)))
    (group,) = (group for group in same(found) if "three" in names(group))
    assert Path(group.kept.path).stem == "three-bytes"
    assert group.reason == "it lies in a reference folder"
    assert [Path(member.path).stem for member in group.offered] == ["three"]
    whole = find_duplicates(copies_index, DuplicateSettings(references=(str(pictures),)))
    assert len(same(whole)) == 3
    assert whole.offered == ()
    with pytest.raises(UsageError, match="no image in this reference folder"):
        find_duplicates(copies_index, DuplicateSettings(references=("/nowhere",)))


def test_lost_and_changed_files_are_never_offered(pictures: Path, tmp_path: Path) -> None:
    shutil.copytree(pictures, tmp_path / "photos")
    index = tmp_path / "photos.diffsim"
    build_index(tmp_path / "photos", index, model="cells")
    (tmp_path / "photos" / "two-again.jpg").unlink()
    shutil.copy(tmp_path / "photos" / "4.png", tmp_path / "photos" / "one-crop.jpg")
    (tmp_path / "photos" / "three.png").unlink()
    found = find_duplicates(index)
    assert not {"two-again", "one-crop", "three"} & {Path(member.path).stem for member in found.offered}
    assert [str(note) for note in found.notes] == [
        "3 images are compared by their tensors alone: their files are gone or have changed since"
    ]
    (group,) = (group for group in same(found) if "three" in names(group))
    assert (Path(group.kept.path).stem, group.offered) == ("three-bytes", ())
    assert group.reason == "its file is the only one that is there"


def test_a_run_is_the_same_every_time(copies_index: Path, found: Duplicates) -> None:
    again = find_duplicates(copies_index, DuplicateSettings(workers=3))
    assert again.groups == found.groups


def test_progress_is_told_and_a_run_can_be_cancelled(copies_index: Path) -> None:
    stages: dict[str, tuple[int, int]] = {}
    cancel = Cancellation()
    find_duplicates(copies_index, on_progress=lambda p: stages.update({p.stage: (p.done, p.total)}))
    assert {"neighbours", "pictures", "pairs", "copies"} <= stages.keys()
    assert all(done == total for done, total in stages.values())
    cancel.request()
    with pytest.raises(CancelledError):
        find_duplicates(copies_index, cancel=cancel)


def test_odd_indexes(pictures: Path, tmp_path: Path) -> None:
    build_index(pictures / "west", tmp_path / "one.diffsim", model="cells")
    assert find_duplicates(tmp_path / "one.diffsim").groups == ()
    build_index(pictures, tmp_path / "none.diffsim", model="cells", modes=["style"], encoders={})
    with pytest.raises(UsageError, match="no vectors to compare"):
        find_duplicates(tmp_path / "none.diffsim")
    build_index(pictures, tmp_path / "lazy.diffsim", model="cells", run=_lazy())
    lazy = find_duplicates(tmp_path / "lazy.diffsim")
    assert len(same(lazy)) == 3
    assert [note.kind for note in lazy.notes] == ["no_tensors"]
    assert all(member.score is None for group in lazy.groups for member in group.members)


def _lazy() -> object:
    from retrieval import BuildSettings

    return BuildSettings(attention="lazy")


def test_settings_out_of_range_and_unknown_modes(copies_index: Path) -> None:
    with pytest.raises(UsageError, match="same must lie above 0"):
        DuplicateSettings(same=0.0)
    with pytest.raises(UsageError, match="neighbours must be at least 1"):
        DuplicateSettings(neighbours=0)
    with pytest.raises(UsageError, match="unknown mode 'lowlevel'; modes of this index: style, instance, semantic"):
        find_duplicates(copies_index, DuplicateSettings(mode="lowlevel"))
