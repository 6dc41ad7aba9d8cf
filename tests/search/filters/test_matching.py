"""Which rows of an index pass a filter: folders, names, dates, sources and metadata."""

import os
import sys
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from index_store.reader import IndexReader
from retrieval import Filter, build_index
from retrieval.errors import DependencyError, UsageError
from retrieval.search.filters.matching import FilterRows
from tests.support.sample_index import RUN, paint
from tests.support.stub_models import tiny_model

DAY = 86_400


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven images of two sources: each a day older than the one before it."""
    folder = tmp_path_factory.mktemp("photos")
    names = ["one/cats/a.png", "one/cats/b.png", "one/dogs/a.png", "one/öl.png", "two/a.png", "two/c.png", "two/d.png"]
    for age, name in enumerate(names):
        path = folder / name
        paint(path.parent, [path.name], seed=age)
        os.utime(path, (1_700_000_000 - age * DAY,) * 2)
    (folder / "two/d.png").write_bytes((folder / "one/cats/a.png").read_bytes())  # a copy
    os.utime(folder / "two/d.png", (1_700_000_000 - 6 * DAY,) * 2)
    with tiny_model():
        build_index([folder / "one", folder / "two"], folder / "p.diffsim", run=RUN)
    return folder


@pytest.fixture(scope="module")
def rows(photos: Path) -> FilterRows:
    return FilterRows(IndexReader(photos / "p.diffsim"))


@pytest.fixture
def here(photos: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(photos)
    return photos


def names(rows: FilterRows, wanted: Filter) -> list[str]:
    reader = rows._reader
    return sorted("/".join(Path(uri).parts[-2:]) for uri in reader.uris(rows.of(wanted)))


EVERY = ["cats/a.png", "cats/b.png", "dogs/a.png", "one/öl.png", "two/a.png", "two/c.png", "two/d.png"]


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ({}, EVERY),
        ({"under": "one/cats"}, EVERY[:2]),
        ({"under": ["one/cats/", "two"]}, EVERY[:2] + EVERY[4:]),
        ({"under": "one/cat"}, []),  # a folder, not the beginning of a name
        ({"glob": "a.png"}, ["cats/a.png", "dogs/a.png", "two/a.png"]),
        ({"glob": ["cats/*", "c.*"]}, ["cats/a.png", "cats/b.png", "two/c.png"]),
        ({"glob": "one/*"}, EVERY[:4]),  # also below its folders
        ({"glob": "[bc].png"}, ["cats/b.png", "two/c.png"]),
        ({"glob": "o\u0308l.png"}, ["one/öl.png"]),  # decomposed, as a Mac spells it
        ({"source": "two"}, EVERY[4:]),
        ({"source": ["one", "two"], "glob": "a.*"}, ["cats/a.png", "dogs/a.png", "two/a.png"]),
        ({"under": "one", "glob": "a.png"}, ["cats/a.png", "dogs/a.png"]),
    ],
)
def test_folders_names_and_sources(rows: FilterRows, here: Path, parts: dict[str, Any], expected: list[str]) -> None:
    assert names(rows, Filter(**parts)) == expected


def test_absolute_names_do_not_depend_on_the_working_folder(rows: FilterRows, photos: Path) -> None:
    assert names(rows, Filter(under=photos / "one/cats")) == EVERY[:2]
    assert names(rows, Filter(glob=f"{photos}/*/c*")) == ["cats/a.png", "cats/b.png", "two/c.png"]
    assert names(rows, Filter(source=photos / "two")) == EVERY[4:]


def test_newer_and_older_part_the_index(rows: FilterRows) -> None:
    moment = datetime.fromtimestamp(1_700_000_000 - 2 * DAY, UTC)
    assert names(rows, Filter(newer=moment)) == EVERY[:3]
    assert names(rows, Filter(older=moment)) == EVERY[3:]
    assert names(rows, Filter(newer="1h")) == []
    assert names(rows, Filter(older="1h")) == EVERY


def test_an_unknown_source_is_an_error_that_lists_the_known(rows: FilterRows, photos: Path) -> None:
    with pytest.raises(UsageError, match=f"three is not a source of this index; it has: {photos}/one, {photos}/two"):
        rows.of(Filter(source="three"))


def table_of(folder: Path, name: str, columns: dict[str, list[Any]]) -> Path:
    path = folder / name
    if path.suffix == ".parquet":
        parquet.write_table(pa.table(columns), path)
    else:
        lines = [columns, *zip(*columns.values(), strict=True)]
        path.write_text("\n".join(",".join("" if value is None else str(value) for value in line) for line in lines))
    return path


@pytest.mark.skipif(find_spec("duckdb") is None, reason="needs the extra `where`")
class TestMetadata:
    @pytest.mark.parametrize("name", ["stars.parquet", "stars.csv"])
    def test_a_condition_on_the_columns_of_a_table(
        self, rows: FilterRows, photos: Path, tmp_path: Path, name: str
    ) -> None:
        columns = {
            "path": ["cats/a.png", str(photos / "one/cats/b.png"), "c.png", "nowhere.png", "dogs/a.png", "dogs/a.png"],
            "Split": ["train", "test", "train", "train", None, "test"],
            "stars": [5, 5, 3, 5, 4, 1],
        }
        table = table_of(tmp_path, name, columns)

        def found(condition: str, **others: Any) -> list[str]:
            return names(rows, Filter(where=condition, metadata=table, **others))

        assert found("split = 'train' and stars >= 4") == ["cats/a.png"]
        assert found("stars between 3 and 4 or stars = 1") == ["dogs/a.png", "two/c.png"]
        assert found("SPLIT in ('train', 'test')", glob="c.png") == ["two/c.png"]
        assert found("path like 'nowhere%'") == []

    def test_content_joins_all_copies(self, rows: FilterRows, tmp_path: Path) -> None:
        digest = rows._reader.items([0])[0].sha256
        table = table_of(tmp_path, "t.csv", {"sha256": [digest.upper(), "0" * 64], "n": [1, 1]})
        assert names(rows, Filter(where="n = 1", metadata=table)) == ["cats/a.png", "two/d.png"]

    def test_a_table_that_is_written_again_is_read_again(self, rows: FilterRows, tmp_path: Path) -> None:
        asked = Filter(where="n = 1", metadata=table_of(tmp_path, "t.csv", {"path": ["a.png"], "n": [1]}))
        assert names(rows, asked) == ["two/a.png"]
        table_of(tmp_path, "t.csv", {"path": ["a.png", "c.png"], "n": [1, 1]})
        assert names(rows, asked) == ["two/a.png", "two/c.png"]

    @pytest.mark.parametrize(
        ("condition", "message"),
        [
            ("colour = 3", 'column "colour" not found.*; the columns of .*t.csv: path, n'),
            ("n = ", "can't be used: syntax error"),
            ("true; drop table t", "can't be used: (cannot have any|expected a single SELECT)"),
            ("true) union (select 1", "can't be used: syntax error"),
            ("(select count(*) from read_csv('/etc/hostname')) > 0", "disabled (by|through) configuration"),
            ("(select count(*) from columns) > 0", "table with name columns does not exist"),  # of this function
            ("path::int > 0", "could not convert"),
        ],
    )
    def test_a_condition_that_does_not_fit(
        self, rows: FilterRows, tmp_path: Path, condition: str, message: str
    ) -> None:
        columns = {"path": ["a.png"], "n": [1]}
        with pytest.raises(UsageError, match=message):
            rows.of(Filter(where=condition, metadata=table_of(tmp_path, "t.csv", columns)))

    def test_a_table_that_does_not_fit(self, rows: FilterRows, tmp_path: Path) -> None:
        (tmp_path / "broken.parquet").write_text("path,n")
        (tmp_path / "t.xlsx").write_text("")
        for name, message in (
            ("missing.csv", "missing.csv can't be read"),
            ("broken.parquet", "broken.parquet can't be read"),
            ("t.xlsx", "neither Parquet"),
        ):
            with pytest.raises(UsageError, match=message):
                rows.of(Filter(where="n = 1", metadata=tmp_path / name))
        with pytest.raises(UsageError, match=r"no column sha256 or path to join by; its columns: file, n"):
            rows.of(Filter(where="n = 1", metadata=table_of(tmp_path, "f.csv", {"file": ["a.png"], "n": [1]})))
        with pytest.raises(UsageError, match=r"no row of .* in its column path, such as 'x.png'"):
            rows.of(Filter(where="n = 1", metadata=table_of(tmp_path, "x.csv", {"path": ["x.png"], "n": [1]})))


def test_without_duckdb_the_error_says_what_to_install(
    rows: FilterRows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    table = table_of(tmp_path, "t.csv", {"path": ["a.png"], "n": [1]})
    with pytest.raises(DependencyError, match="DuckDB, which is not installed") as raised:
        rows.of(Filter(where="n = 1", metadata=table))
    assert raised.value.advice == "install-package"
