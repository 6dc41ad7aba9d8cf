"""Which index is meant, and where a new one goes."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.advice import sentence_of
from index_store.errors import DiffSimError, IndexNotFoundError, UsageError
from index_store.files import FileRecord, check_file
from index_store.generation import read_current
from index_store.layout import Layout
from index_store.locate import find_index, is_index, new_index_path
from index_store.reader import IndexReader
from tests.index_store.small_index import item, make_index, read_all


def test_a_new_index_is_named_after_its_folder(tmp_path: Path) -> None:
    assert new_index_path([tmp_path / "coco"], tmp_path) == tmp_path / "coco.diffsim"
    assert new_index_path([tmp_path / "coco" / ".."], Path()).name == f"{tmp_path.name}.diffsim"
    assert new_index_path([Path("/")], tmp_path) == tmp_path / "root.diffsim"
    with pytest.raises(UsageError, match="several sources"):
        new_index_path([tmp_path / "a", tmp_path / "b"], tmp_path)


def test_the_index_meant_is_the_named_one_then_the_environments_then_the_only_one(tmp_path: Path) -> None:
    a, b = (make_index(tmp_path / f"{name}.diffsim", 0).root for name in "ab")
    environment = {"DIFFSIM_INDEX": str(b)}
    assert find_index(a, environment, tmp_path) == a
    assert find_index(None, environment, tmp_path) == b
    with pytest.raises(IndexNotFoundError, match=r"several .*a\.diffsim, b\.diffsim"):
        find_index(None, {}, tmp_path)
    (b / "CURRENT").rename(tmp_path / "gone")
    (b / "generations").rename(tmp_path / "also_gone")
    assert find_index(None, {}, tmp_path) == a
    with pytest.raises(IndexNotFoundError, match="is not an index"):
        find_index(None, environment, tmp_path)
    with pytest.raises(IndexNotFoundError, match="does not exist"):
        find_index(tmp_path / "c.diffsim", {}, tmp_path)
    with pytest.raises(IndexNotFoundError, match="no index in"):
        find_index(None, {}, tmp_path / "elsewhere")


def test_a_damaged_index_still_counts_as_one(layout: Layout) -> None:
    layout.current.unlink()
    assert is_index(layout.root)
    assert find_index(None, {}, layout.root.parent) == layout.root


@pytest.mark.parametrize("name", ["plain.diffsim", "a=b/c=1.diffsim", "ü 日本 #%20?.diffsim", "s3:x.diffsim"])
def test_an_index_may_lie_in_a_folder_of_any_name(tmp_path: Path, name: str) -> None:
    assert read_all(make_index(tmp_path / name, 1).root)[0] == [item(0), item(1), item(2)]


@pytest.mark.parametrize("name", ["nothing", "empty", "locked"])
def test_opening_what_is_no_index_says_so(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "locked").mkdir()
    (tmp_path / "locked" / "LOCK").touch()
    with pytest.raises(IndexNotFoundError) as caught:
        IndexReader(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize(
    ("cause", "sentence"),
    [
        (lambda folder: new_index_path([folder / "a", folder / "b"], folder), r"; name the index with --index NAME"),
        (
            lambda folder: find_index(None, {}, folder / "elsewhere"),
            r"no index in .*; make one with: diffsim-index build FOLDER, or",
        ),
        (lambda folder: find_index(folder / "x y", {}, folder), r"build FOLDER --index '/.*/x y'$"),
        (lambda folder: read_current(Layout(folder / "a b.diffsim")), r"verify --repair --index '/.*/a b\.diffsim'$"),
        (
            lambda folder: check_file(folder / "stray", FileRecord(0, 0)),
            r"stray is missing; restore .* verify --repair$",
        ),
    ],
    ids=["unnamed", "none", "not there", "damaged", "nowhere in an index"],
)
def test_the_command_line_adds_the_remedy(tmp_path: Path, cause: Callable[[Path], object], sentence: str) -> None:
    (tmp_path / "a b.diffsim" / "generations").mkdir(parents=True)
    with pytest.raises(DiffSimError) as caught:
        cause(tmp_path)
    assert re.search(sentence, sentence_of(caught.value))
