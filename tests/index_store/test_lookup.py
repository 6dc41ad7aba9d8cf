"""Which items a user means: searches and removal understand the same words."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from index_store.commit import commit
from index_store.errors import UsageError
from index_store.layout import Layout
from index_store.lookup import find_items, find_rows, locate_image
from index_store.reader import IndexReader
from index_store.segment_writer import SegmentWriter
from tests.index_store.small_index import EMPTY, item

NAMES = ("a/1.png", "a/2.png", "b/1.png", "b/[1].png", "b/ü.png", "id:7")


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> IndexReader:
    """Items below a working folder whose own name is full of wildcards; none of the files exists."""
    folder = tmp_path / "photos [2024] *"
    folder.mkdir()
    monkeypatch.chdir(folder)
    layout = Layout(tmp_path / "x.diffsim")
    writer = SegmentWriter(layout, "000001")
    items = [replace(item(number), uri=str(folder / name)) for number, name in enumerate(NAMES)]
    writer.append(items, [], {}, {})
    commit(layout, replace(EMPTY, segments=(writer.finish(),), next_id=len(NAMES)), "tests")
    return IndexReader(layout.root)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("id:0", [0]),
        ("id:5", [5]),
        ("id:6", []),
        (f"id:{2**63}", []),  # no int64
        ("id:", []),
        ("a/2.png", [1]),
        ("./a/../a/2.png", [1]),
        ("2.png", [1]),
        ("/2.png", [1]),
        ("1.png", [0, 2]),
        ("ng", []),
        ("a/*.png", [0, 1]),
        ("*.png", [0, 1, 2, 3, 4]),
        ("?/1.png", [0, 2]),
        ("[ab]/1.png", [0, 2]),
        ("*/a/1.png", []),  # relative to the working folder
        ("b/[1].png", [3]),  # a file of this name comes before the pattern
        ("[1].png", [3]),
        ("ü.png", [4]),
        ("\udcff.png", []),  # bytes that are not UTF-8, as a shell passes them on
        ("a\0b", []),
        ("", []),
    ],
)
def test_words_for_items(reader: IndexReader, text: str, rows: list[int]) -> None:
    assert find_rows(reader, text) == rows
    if rows:
        assert find_items(reader, text) == reader.items(rows)
    else:
        with pytest.raises(UsageError, match=r"no item of .*x\.diffsim has that"):
            find_items(reader, text)


def test_absolute_words_do_not_depend_on_the_working_folder(
    reader: IndexReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path.cwd()
    monkeypatch.chdir("/")
    assert find_rows(reader, str(folder / "a" / "1.png")) == [0]
    assert find_rows(reader, "/*/a/*.png") == [0, 1]
    assert find_rows(reader, "a/*.png") == []


def test_a_query_is_a_file_or_exactly_one_item(reader: IndexReader, tmp_path: Path) -> None:
    assert (
        locate_image(reader, "2.png")
        == locate_image(reader, "id:1")
        == locate_image(reader, "a/2*")
        == Path(reader.items([1])[0].uri)
    )
    with pytest.raises(UsageError, match=r"1\.png fits 2 items of the index; name one of them: id:0 .*a/1\.png, id:2"):
        locate_image(reader, "1.png")
    with pytest.raises(UsageError, match=r"query 9\.png: no such file, and no item of .* has that name"):
        locate_image(reader, "9.png")
    with pytest.raises(UsageError, match=r"no item of .* has that id; its ids are id:0 to id:5"):
        locate_image(reader, "id:6")
    Path("2.png").touch()
    assert locate_image(reader, "2.png") == "2.png", "a file at hand comes first"
    with pytest.raises(UsageError, match="is a folder"):
        locate_image(reader, os.fspath(tmp_path))
