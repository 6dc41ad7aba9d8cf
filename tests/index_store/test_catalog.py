"""The catalogue's files: rows survive, and every damage is found."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index_store import catalog
from index_store.catalog import Catalog
from index_store.catalog_files.rows import GONE, ITEM_SCHEMA, REJECT_SCHEMA, Item, Reject, read_table, write_rows
from index_store.catalog_files.sources import Source, Sources
from index_store.commit import commit
from index_store.errors import IndexCorruptError
from index_store.generation import read_current
from index_store.layout import Layout
from index_store.reader import IndexReader
from index_store.segment_writer import SegmentWriter
from tests.index_store.small_index import assert_corrupt, item, read_all
from tests.slices import examples
from tests.support.faults import flip_bit
from tests.support.synthetic_index import add_segments

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
INT64 = st.integers(-(2**63), 2**63 - 1)
INT32 = st.integers(0, 2**31 - 1)
PATH = st.builds("".join, st.lists(st.sampled_from(["/a", "/b", "/é", "/a b", "/c.png"]), min_size=1, max_size=4))
FOLDERS = st.lists(st.sampled_from(["/", "/a", "/a/b", "/a b", "/é/a"]), max_size=3, unique=True)
STATE = (INT64, INT64)
ITEMS = st.lists(st.builds(Item, INT64, PATH, *STATE, TEXT, INT32, INT32, INT64), max_size=5)
REASON = TEXT.filter(lambda reason: reason != GONE)
REJECTS = st.lists(st.builds(Reject, PATH, *STATE, REASON, TEXT), max_size=5, unique_by=lambda reject: reject.uri)


@settings(max_examples=examples(50), deadline=None)
@given(items=ITEMS, rejects=REJECTS, folders=FOLDERS)
def test_catalogue_rows_survive_below_any_sources(
    tmp_path_factory: pytest.TempPathFactory, items: list[Item], rejects: list[Reject], folders: list[str]
) -> None:
    path, sources = (
        tmp_path_factory.getbasetemp() / "rows.parquet",
        Sources(Source(*each) for each in enumerate(folders)),
    )
    for rows, schema in ((items, ITEM_SCHEMA), (rejects, REJECT_SCHEMA)):
        write_rows(path, rows, schema, sources)
        table = read_table(path, schema)
        assert sources.absolute(table).to_pylist() == [row.uri for row in rows]
        for name in set(schema.names) - {"source", "path"}:
            assert table[name].to_pylist() == [getattr(row, name) for row in rows]
        inside = [number >= 0 for number in table["source"].to_pylist()]
        assert inside == [any(f"{row.uri}".startswith(folder.rstrip("/") + "/") for folder in folders) for row in rows]


def test_a_generation_that_lost_its_sources_finds_them_in_the_files_of_its_segments(layout: Layout) -> None:
    generation = read_current(layout)
    told = replace(generation, sources=(Source(4, "/far"),))
    writer = SegmentWriter(layout, "000004", sources=told.sources)
    writer.append([replace(item(100), uri="/far/a/1.png")], [], {"e": np.eye(4)[:1]}, {})
    record = writer.finish()
    lost = replace(generation, segments=(*generation.segments, record), next_id=101)
    assert Catalog(layout, lost).uris()[-1] == "/far/a/1.png"


def test_a_reader_takes_over_what_an_older_one_has_read_of_the_segments_of_both(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = IndexReader(layout.root)
    files = {layout.items(segment.name) for segment in older.generation.segments}
    read, own = list[Path](), catalog.read_table
    monkeypatch.setattr(catalog, "read_table", lambda path, *rest: read.append(path) or own(path, *rest))
    generation = replace(older.generation, tombstones=(int(older.ids[0]),))
    writer = SegmentWriter(layout, "000009")
    writer.append([item(100)], [], {"e": np.eye(4)[:1]}, {})
    commit(layout, replace(generation, segments=(*generation.segments, writer.finish()), next_id=101), "tests")
    newer = IndexReader(layout.root, known=older)
    assert read == [layout.items("000009")]
    newest = IndexReader(layout.root, known=newer)  # the first segment is no longer whole
    assert set(read[1:]) == {layout.items(older.generation.segments[0].name)}
    fresh = IndexReader(layout.root)
    assert set(read[2:]) == files | {layout.items("000009")}
    for reader in (newer, newest):
        assert reader.items() == fresh.items()
        assert reader.catalog.sources.all == fresh.catalog.sources.all


def test_of_another_index_nothing_is_taken_over(layout: Layout, tmp_path: Path) -> None:
    add_segments(tmp_path / "other.diffsim", [3], 4)
    other, again = IndexReader(tmp_path / "other.diffsim"), IndexReader(layout.root, known=None)
    assert IndexReader(layout.root, known=other).items() == again.items()


def test_a_reject_that_is_gone_is_none_until_it_is_one_again(layout: Layout) -> None:
    generation = read_current(layout)
    reject = Reject("/photos/broken1.png", 3, 4, "truncated", "ends early")
    for name, row in (("000004", replace(reject, reason=GONE)), ("000005", reject)):
        writer = SegmentWriter(layout, name)
        writer.append([], [row], {}, {})
        generation = commit(layout, replace(generation, segments=(*generation.segments, writer.finish())), "tests")
        listed = {reject.uri for reject in IndexReader(layout.root).rejects()}
        assert ("/photos/broken1.png" in listed) == (row.reason != GONE)


def test_the_newest_word_on_a_reject_wins_and_items_are_no_rejects(layout: Layout) -> None:
    generation = read_current(layout)
    writer = SegmentWriter(layout, "000004")
    newest = Reject("/photos/broken1.png", 3, 4, "not_an_image", "is text")
    writer.append([], [newest, Reject("/photos/0.png", 3, 4, "vanished", "an item has this name")], {}, {})
    commit(layout, replace(generation, segments=(*generation.segments, writer.finish())), "tests")
    assert {reject.uri: reject.reason for reject in IndexReader(layout.root).rejects()} == {
        "/photos/broken1.png": "not_an_image",
        "/photos/broken2.png": "truncated",
    }


@pytest.mark.parametrize("kind", ["items.parquet", "rejects.parquet", "vectors/e.npy"])
@pytest.mark.thorough
def test_any_damage_to_the_catalogue_or_vectors_is_found(layout: Layout, kind: str) -> None:
    victim = layout.segment("000002") / kind
    whole, before = victim.read_bytes(), read_all(layout.root)
    damaged = [whole[:length] for length in range(0, len(whole), 1 + len(whole) // 20)]
    damaged += [bytes(len(whole)), whole + b"\0", whole[::-1], (layout.segment("000003") / kind).read_bytes()]
    for content in damaged:
        victim.write_bytes(content)
        assert_corrupt(layout.root, victim)
    victim.write_bytes(whole)
    for bit in range(0, 8 * len(whole), 1 + len(whole) // 15):
        flip_bit(victim, bit)
        assert_corrupt(layout.root, victim)
        flip_bit(victim, bit)
    victim.unlink()
    assert_corrupt(layout.root, victim)
    victim.mkdir()
    assert_corrupt(layout.root, victim)
    victim.rmdir()
    victim.write_bytes(whole)
    assert read_all(layout.root) == before


def test_another_valid_table_is_no_catalogue(tmp_path: Path) -> None:
    path = tmp_path / "items.parquet"
    pq.write_table(pa.table({"id": pa.array([1], pa.int64())}), path)
    with pytest.raises(IndexCorruptError, match="other columns"):
        read_table(path, ITEM_SCHEMA)
    write_rows(path, [item(1)], ITEM_SCHEMA)
    with pytest.raises(IndexCorruptError, match="other columns"):
        read_table(path, REJECT_SCHEMA)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + bytes(100) + b"PAR1", b"no Parquet at all\n" * 9])
def test_what_is_no_parquet_file_is_found(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "items.parquet").write_bytes(content)
    with pytest.raises(IndexCorruptError, match=r"items\.parquet is not a whole Parquet file"):
        read_table(tmp_path / "items.parquet", ITEM_SCHEMA)
