"""An index of images inside tars and tables is that of the same files in a folder, and follows every change."""

import os
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from index_store.reader import IndexReader
from retrieval.images.shards.naming import path_of_member
from retrieval.indexing.dry_run import plan_build
from retrieval.indexing.sources.upkeep import drop_source, list_sources, relocate_sources
from retrieval.indexing.upkeep.updating import update_index
from retrieval.indexing.workers.shards import IndexPart, commit_shards, shard_index
from retrieval.search.browsing.catalogue import original, thumbnail
from retrieval.search.engine import Engine
from retrieval.search.filters.filter import Filter
from tests.indexing.builds import build, computed, reasons_of, refuse_to_compute, stop_at
from tests.support.paths import ROOT
from tests.support.sample_index import RUN, Contents, paint
from tests.support.shards import add_bytes, save_to_disk, write_bytes, write_hub, write_names, write_tar
from tests.support.stub_models import load_tiny

pytestmark = pytest.mark.usefixtures("tiny")
IMAGES = 7


def two(write: Callable[[Path, list[Path]], Path], suffix: str) -> Callable[[Path, list[Path]], Path]:
    def written(folder: Path, files: list[Path]) -> Path:
        write(folder / f"0{suffix}", files[:4])
        write(folder / f"1{suffix}", files[4:])
        return folder

    return written


def names_beside(folder: Path, files: list[Path]) -> Path:
    folder.mkdir()
    for file in files:
        shutil.copy(file, folder)
    return write_names(folder / "list.parquet", [file.name for file in files])


FORMATS = {
    "tar": two(write_tar, ".tar"),
    "hub": two(write_hub, ".parquet"),
    "bytes": two(write_bytes, ".parquet"),
    "datasets": save_to_disk,
    "names": names_beside,
}


@pytest.fixture
def files(photos: Path) -> list[Path]:
    return sorted(photos.iterdir())


@pytest.fixture(params=FORMATS)
def shards(request: pytest.FixtureRequest, files: list[Path], tmp_path: Path) -> Path:
    return FORMATS[request.param](tmp_path / "shards", files)


def shards_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in (".tar", ".parquet", ".arrow"))


def uris_of(index: Path) -> list[str]:
    return [item.uri for item in IndexReader(index).items()]


def test_the_index_equals_that_of_a_folder(shards: Path, photos: Path, index: Path, tmp_path: Path) -> None:
    assert build(shards, index).added == IMAGES
    build(photos, tmp_path / "plain.diffsim")
    found, expected = Contents.of(index), Contents.of(tmp_path / "plain.diffsim")
    assert found.vectors == expected.vectors
    assert found.tensors == expected.tensors
    assert [item.sha256 for item in found.items] == [item.sha256 for item in expected.items]
    query = photos / "002.png"
    results = [Engine.open(each).search(query, "style", k=5) for each in (index, tmp_path / "plain.diffsim")]
    assert [(r.id, r.score) for r in results[0]] == [(r.id, r.score) for r in results[1]]
    assert not any(result.is_gone for result in results[0])
    for item, file in zip(found.items, sorted(photos.iterdir()), strict=True):
        assert original(item)[0] == file.read_bytes()
        assert thumbnail(item, 16, 10**6).width <= 16


def test_nothing_is_computed_again_while_nothing_changes(shards: Path, index: Path) -> None:
    build(shards, index)
    assert build(shards, index, on_progress=refuse_to_compute).unchanged == IMAGES
    assert plan_build(shards, index, run=RUN, load=load_tiny).unchanged == IMAGES
    assert update_index(index, RUN, refuse_to_compute, load=load_tiny).unchanged == IMAGES


@pytest.mark.thorough
def test_a_stopped_build_goes_on_to_the_same_index(shards: Path, index: Path, tmp_path: Path) -> None:
    run = replace(RUN, segment_rows=2)
    with pytest.raises(KeyboardInterrupt):
        build(shards, index, run, on_progress=stop_at("commit", 2))
    assert 0 < len(uris_of(index)) < IMAGES
    build(shards, index, run)
    build(shards, tmp_path / "whole.diffsim", run)
    assert not Contents.of(index).differences(Contents.of(tmp_path / "whole.diffsim"))


@pytest.mark.thorough
def test_a_killed_build_goes_on_to_the_same_index(files: list[Path], index: Path, tmp_path: Path) -> None:
    folder = FORMATS["hub"](tmp_path / "shards", files)
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom tests.indexing.builds import build\n"
        "def kill(event):\n    if event.stage == 'commit' and event.done: os.kill(os.getpid(), signal.SIGKILL)\n"
        "build(Path(sys.argv[1]), Path(sys.argv[2]), on_progress=kill)"
    )
    killed = subprocess.run([sys.executable, "-c", code, folder, index], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert 0 < len(uris_of(index)) < IMAGES
    build(folder, index)
    build(folder, tmp_path / "whole.diffsim")
    assert not Contents.of(index).differences(Contents.of(tmp_path / "whole.diffsim"))


def test_a_rewritten_shard_is_compared_by_content(
    files: list[Path], index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = FORMATS["hub"](tmp_path / "shards", files)
    build(folder, index)
    before = Contents.of(index)
    new = paint(tmp_path / "new", ["new.png"])
    write_hub(folder / "0.parquet", [*new, *files[:3]])  # the fourth is gone, and rows have moved on by one
    batches = computed(monkeypatch)
    report = build(folder, index)
    assert sum(images for images, _, _ in batches) == 1
    assert (report.added, report.removed, report.items) == (1, 1, IMAGES)
    content = {item.uri.rpartition("/")[2]: item.sha256 for item in Contents.of(index).items}
    assert [content[f"0.parquet#{row}"] for row in (1, 2, 3)] == [item.sha256 for item in before.items[:3]]
    assert [content[f"1.parquet#{row}"] for row in range(3)] == [item.sha256 for item in before.items[4:]]


def test_members_that_come_change_and_go_are_followed(
    files: list[Path], index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = write_tar(tmp_path / "in" / "a.tar", files)
    build(shard, index)
    with tarfile.open(shard, "w") as tar:
        for file in [*files[1:4], *files[5:]]:
            tar.add(file, file.name)
        add_bytes(tar, "004.png", files[0].read_bytes())  # other content under its name
        tar.add(paint(tmp_path / "new", ["new.png"])[0], "new.png")
    batches = computed(monkeypatch)
    report = build(shard, index)
    assert sum(images for images, _, _ in batches) == 1
    assert (report.removed, report.items) == (1, IMAGES)
    assert {Path(uri).name for uri in uris_of(index)} == {*(file.name for file in files[1:]), "new.png"}


def test_a_renamed_shard_keeps_its_items(shards: Path, index: Path) -> None:
    build(shards, index)
    for shard in [shards] if shards.is_file() else shards_in(shards):
        shard.rename(shard.with_name(f"new-{shard.name}"))
    source = shards.with_name(f"new-{shards.name}") if shards.suffix else shards
    report = build(source, index, on_progress=refuse_to_compute)
    assert (report.moved, report.items) == (IMAGES, IMAGES)


def test_a_damaged_shard_names_itself_and_keeps_known_items(files: list[Path], index: Path, tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "in" / "a.tar", files, tarfile.USTAR_FORMAT)
    build(tmp_path / "in", index)
    with tarfile.open(shard) as tar:
        offset = tar.getmember("003.png").offset
    content = bytearray(shard.read_bytes())
    content[offset : offset + 512] = b"\xaa" * 512
    shard.write_bytes(content)
    report = build(tmp_path / "in", index)
    assert report.items == IMAGES
    assert report.unreadable_folders == (str(shard),)
    (reject,) = IndexReader(index).rejects()
    assert reject.uri == str(shard)
    assert "002.txt" in reject.detail
    write_tar(shard, files[:3])
    assert build(tmp_path / "in", index, replace(RUN, gone=True)).items == 3
    assert not IndexReader(index).rejects()


def test_a_damaged_member_is_a_reject_of_its_own(files: list[Path], index: Path, tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "a.tar", files)
    with tarfile.open(shard, "a") as tar:
        add_bytes(tar, "zz.png", b"no image")
    assert build(shard, index).items == IMAGES
    assert reasons_of(index) == {"zz.png": "not_an_image"}
    assert build(shard, index, on_progress=refuse_to_compute).unchanged == IMAGES


def test_sources_with_shards_are_listed_moved_and_dropped(shards: Path, index: Path, tmp_path: Path) -> None:
    build(shards, index)
    (state,) = list_sources(index).sources
    assert (state.items, state.missing) == (IMAGES, 0)
    folder = shards.parent if shards.is_file() else shards
    folder.rename(tmp_path / "elsewhere")
    relocate_sources(index, folder, tmp_path / "elsewhere")
    (state,) = list_sources(index).sources
    assert (state.items, state.missing, state.location) == (IMAGES, 0, str(tmp_path / "elsewhere"))
    assert update_index(index, RUN, refuse_to_compute, load=load_tiny).unchanged == IMAGES
    shards_in(tmp_path / "elsewhere")[0].unlink()
    assert list_sources(index).sources[0].missing > 0
    assert drop_source(index, tmp_path / "elsewhere").removed == IMAGES


def test_a_search_may_be_narrowed_to_a_shard_and_ask_with_a_member(
    files: list[Path], index: Path, tmp_path: Path
) -> None:
    folder = FORMATS["hub"](tmp_path / "shards", files)
    build(folder, index)
    here = Filter(under=(str(folder / "1.parquet"),))
    found = Engine.open(index).search(folder / "0.parquet#1", "style", k=IMAGES, where=here)
    assert {result.path for result in found} == {
        path_of_member(str(folder / "1.parquet"), str(row)) for row in range(3)
    }


def test_parts_of_a_build_take_whole_shards(files: list[Path], index: Path, tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    for number, file in enumerate(files):
        write_tar(folder / f"{number}.tar", [file])
    for number in (1, 2):
        part = IndexPart(number, 2)
        build(folder, shard_index(index, part), only=lambda listing, part=part: part.part_of(index, listing))
    commit_shards(index)
    assert sorted(uris_of(index)) == sorted(str(folder / f"{n}.tar" / file.name) for n, file in enumerate(files))


def test_a_shard_that_was_emptied_keeps_its_items(files: list[Path], index: Path, tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "in" / "a.tar", files)
    build(tmp_path / "in", index)
    os.truncate(shard, 0)
    assert build(tmp_path / "in", index, replace(RUN, retry_rejects=True)).items == IMAGES
