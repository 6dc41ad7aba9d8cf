import errno
import json
import os
import resource
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index_store import generation as manifest
from index_store.catalog import ITEM_SCHEMA, REJECT_SCHEMA, Item, Reject, items_of, read_table, rejects_of, write_rows
from index_store.commit import commit
from index_store.errors import (
    IndexCorruptError,
    IndexIncompatibleError,
    IndexLockedError,
    IndexNotFoundError,
    NoSpaceError,
    UsageError,
)
from index_store.files import FileRecord, atomic_write
from index_store.generation import AttentionRecord, Generation, SegmentRecord, read_current, read_generation
from index_store.layout import Layout
from index_store.locate import find_index, is_index, new_index_path
from index_store.lock import writer_lock
from index_store.reader import IndexReader
from index_store.segment_writer import SegmentWriter
from index_store.vectors.flat import FlatIndex
from index_store.vectors.storage import normalised, read_vectors, write_vectors
from tests.support.faults import flip_bit

FULL_DEVICE = Path("/dev/full")
EMPTY = Generation(0, {"model": {"name": "m"}}, {}, (), ("e",), ("style",))

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
INT64 = st.integers(-(2**63), 2**63 - 1)
INT32 = st.integers(0, 2**31 - 1)
ITEMS = st.lists(st.builds(Item, INT64, TEXT, INT64, INT64, TEXT, INT32, INT32), max_size=5)
REJECTS = st.lists(st.builds(Reject, TEXT, INT64, INT64, TEXT, TEXT), max_size=5)
NATURAL = st.integers(0, 2**53)
FILES = st.dictionaries(TEXT, st.builds(FileRecord, NATURAL, NATURAL), max_size=3)
SHAPES = st.dictionaries(TEXT, st.lists(NATURAL, max_size=4).map(tuple), max_size=3)
ATTENTION = st.dictionaries(TEXT, st.builds(AttentionRecord, SHAPES, NATURAL, TEXT), max_size=2)
JSON = st.recursive(
    st.none() | st.booleans() | NATURAL | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
NAMES = st.lists(TEXT, max_size=3).map(tuple)
GENERATIONS = st.builds(
    Generation,
    number=st.integers(0, 10**7),
    fingerprint=st.dictionaries(TEXT, JSON, max_size=3),
    settings=st.dictionaries(TEXT, JSON, max_size=3),
    sources=NAMES,
    encoders=NAMES,
    modes=NAMES,
    segments=st.lists(st.builds(SegmentRecord, TEXT, NATURAL, NATURAL, FILES, ATTENTION), max_size=3).map(tuple),
    tombstones=st.lists(NATURAL, max_size=3).map(tuple),
    next_id=NATURAL,
)


@pytest.fixture(autouse=True)
def no_flushing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare the disk: no test here is about a power failure."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """An index of two segments of three items, three generations."""
    return make_index(tmp_path / "x.diffsim", segments=2)


def make_index(root: Path, segments: int) -> Layout:
    layout = Layout(root)
    generation = commit(layout, EMPTY, "tests")
    for _ in range(segments):
        generation = grow(layout, generation)
    return layout


def grow(layout: Layout, generation: Generation) -> Generation:
    """Commit one more segment of three items and one reject."""
    writer = SegmentWriter(layout, f"{generation.number + 1:06d}")
    ids = range(generation.next_id, generation.next_id + 3)
    vectors = np.eye(4, dtype=np.float32)[[i % 4 for i in ids]]
    tensors = {name: np.full((3, 1, 1, 2, 2), generation.number, np.float16) for name in ("q", "k", "v")}
    reject = Reject(f"/photos/broken{generation.number}.png", 1, 2, "truncated", "ends early")
    writer.append([item(i) for i in ids], [reject], {"e": vectors}, {"style": tensors})
    grown = replace(generation, segments=(*generation.segments, writer.finish()), next_id=ids.stop)
    return commit(layout, grown, "tests")


def item(number: int) -> Item:
    return Item(number, f"/photos/{number}.png", 10, 20, f"{number:064x}", 640, 480)


def read_all(root: Path) -> tuple[list[Item], list[Reject], list[list[float]]]:
    reader = IndexReader(root)
    return reader.items(), reader.rejects(), reader.vectors("e").tolist()


def assert_corrupt(root: Path, victim: Path) -> None:
    with pytest.raises(IndexCorruptError) as caught:
        read_all(root)
    assert str(victim) in str(caught.value)


# --- Names and places


def test_a_new_index_is_named_after_its_folder(tmp_path: Path) -> None:
    assert new_index_path([tmp_path / "coco"], tmp_path) == tmp_path / "coco.diffsim"
    assert new_index_path([tmp_path / "coco" / ".."], Path()).name == f"{tmp_path.name}.diffsim"
    assert new_index_path([Path("/")], tmp_path) == tmp_path / "root.diffsim"
    with pytest.raises(UsageError, match="--index"):
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
    with pytest.raises(IndexNotFoundError, match="is no index"):
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


# --- Catalogue


@settings(max_examples=50, deadline=None)
@given(items=ITEMS, rejects=REJECTS)
def test_catalogue_rows_survive(
    tmp_path_factory: pytest.TempPathFactory, items: list[Item], rejects: list[Reject]
) -> None:
    path = tmp_path_factory.getbasetemp() / "rows.parquet"
    write_rows(path, items, ITEM_SCHEMA)
    assert items_of(read_table(path, ITEM_SCHEMA)) == items
    write_rows(path, rejects, REJECT_SCHEMA)
    table = read_table(path, REJECT_SCHEMA)
    assert rejects_of([table]) == list({reject.uri: reject for reject in rejects}.values())


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
    with pytest.raises(IndexCorruptError, match=r"items\.parquet is no whole Parquet file"):
        read_table(tmp_path / "items.parquet", ITEM_SCHEMA)


# --- Vectors


def test_vectors_survive_to_float16_and_are_normalised_again(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((5, 7)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    write_vectors(tmp_path / "v" / "e.npy", [vectors[:2], vectors[2:]])
    assert np.load(tmp_path / "v" / "e.npy").dtype == np.float16
    found = normalised(read_vectors(tmp_path / "v" / "e.npy", 5))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, vectors, atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 7), np.float16),
        np.zeros((5, 7), np.float32),
        np.zeros(5, np.float16),
        np.array([{}] * 5, object),
        np.zeros((5, 7), [("x", "<f2")]),
    ],
    ids=["rows", "dtype", "axes", "objects", "fields"],
)
def test_other_arrays_are_no_vectors(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "e.npy", array)
    with pytest.raises(IndexCorruptError, match=r"e\.npy"):
        read_vectors(tmp_path / "e.npy", 5)


def test_what_is_no_npy_file_is_found(tmp_path: Path) -> None:
    np.savez(tmp_path / "archive.npz", np.zeros((5, 7), np.float16))
    np.save(tmp_path / "whole.npy", np.zeros((5, 7), np.float16))
    whole = (tmp_path / "whole.npy").read_bytes()
    contents = [b"", b"PK\3\4", b"text", (tmp_path / "archive.npz").read_bytes()]
    contents += [whole.replace(old, new) for old, new in ((b"{", b"["), (b"(5", b"5("), (b"<f2", b"<x2"))]
    contents += [whole[:length] for length in range(len(whole))]
    for content in contents:
        (tmp_path / "e.npy").write_bytes(content)
        with pytest.raises(IndexCorruptError, match=r"e\.npy"):
            read_vectors(tmp_path / "e.npy", 5)


def test_ties_of_the_coarse_stage_go_to_the_lowest_row() -> None:
    index = FlatIndex(np.eye(3, dtype=np.float32)[[0, 1, 0, 1, 0]])
    rows, cosines = index.search(np.array([1, 0, 0], np.float32), 5)
    assert rows.tolist() == [0, 2, 4, 1, 3]
    assert cosines.tolist() == [1, 1, 1, 0, 0]


# --- Generations


@settings(max_examples=60, deadline=None)
@given(generation=GENERATIONS)
def test_a_generation_survives(tmp_path_factory: pytest.TempPathFactory, generation: Generation) -> None:
    layout = Layout(tmp_path_factory.mktemp("g"))
    stored = commit(layout, generation, "tests 1.0")
    assert read_current(layout) == stored
    same = replace(stored, number=generation.number, created="", created_by="")
    assert same == generation
    assert stored.number == generation.number + 1
    assert stored.created_by == "tests 1.0"


@pytest.mark.parametrize(
    "content",
    [None, "", "\n", "000007.json\n", "000003", "../generations/000003.json", "\0" * 9, "ü", "000003.json 1234\n"],
)
def test_a_lost_current_can_be_written_back_by_hand(layout: Layout, content: str | None) -> None:
    before = read_all(layout.root)
    layout.current.unlink()
    if content is not None:
        layout.current.write_text(content, encoding="utf-8")
    with pytest.raises(IndexCorruptError) as caught:
        IndexReader(layout.root)
    message = str(caught.value)
    assert str(layout.current) in message
    assert "write its name into it: 000002.json, 000003.json" in message, "not the empty one"
    for name, items in (("000003.json", 6), ("000002.json\n", 3), ("000001.json\r\n", 0)):
        layout.current.write_text(name)
        assert len(IndexReader(layout.root)) == items
    layout.current.write_text("000003.json")
    assert read_all(layout.root) == before


def test_no_flipped_bit_of_current_gives_an_older_generation(layout: Layout) -> None:
    for bit in range(8 * layout.current.stat().st_size):
        flip_bit(layout.current, bit)
        try:
            assert read_current(layout).number == 3
        except IndexCorruptError as error:
            assert str(layout.current) in str(error)  # noqa: PT017  (either is right)
        flip_bit(layout.current, bit)
    assert read_current(layout).number == 3


def test_any_damage_to_a_generation_is_found(layout: Layout) -> None:
    victim = layout.generation(3)
    whole = victim.read_bytes()
    damaged = [whole[:length] for length in range(0, len(whole) - 1, 7)]
    damaged += [bytes(len(whole)), whole[::-1], whole * 2, layout.generation(2).read_bytes()]
    for bit in range(0, 8 * len(whole), 7):
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        damaged.append(bytes(changed))
    for content in damaged:
        victim.write_bytes(content)
        with pytest.raises(IndexCorruptError) as caught:
            read_current(layout)
        assert str(victim) in str(caught.value)
    victim.unlink()
    assert_corrupt(layout.root, layout.current)


@pytest.mark.parametrize(
    "content",
    ["[]", "null", "1", '"x"', "{}", '{"generation": null}', '{"generation": {"rows": 1}}', "[" * 9],
)
def test_other_json_is_no_generation(layout: Layout, content: str) -> None:
    layout.generation(3).write_text(content)
    with pytest.raises(IndexCorruptError, match=r"000003\.json"):
        read_current(layout)


@pytest.mark.parametrize("field", ["number", "next_id", "format_version", "created"])
def test_an_edited_generation_is_found(layout: Layout, field: str) -> None:
    envelope = json.loads(layout.generation(3).read_text())
    envelope["generation"][field] = 99
    layout.generation(3).write_text(json.dumps(envelope))
    with pytest.raises(IndexCorruptError, match=r"000003\.json"):
        read_current(layout)


def test_reformatting_a_generation_changes_nothing(layout: Layout) -> None:
    before = read_current(layout)
    envelope = json.loads(layout.generation(3).read_text())
    layout.generation(3).write_text(json.dumps(envelope, sort_keys=True, indent=None))
    assert read_current(layout) == before


def test_a_newer_format_asks_for_an_update(layout: Layout) -> None:
    with mock.patch.object(manifest, "FORMAT_VERSION", 3):
        commit(layout, read_current(layout), "a later version")
    with pytest.raises(IndexIncompatibleError, match=r"format version 3.* up to 2: update"):
        IndexReader(layout.root)


def test_only_the_last_eight_generations_are_kept(layout: Layout) -> None:
    generation = read_current(layout)
    for _ in range(9):
        generation = commit(layout, generation, "tests")
    assert generation.number == 12
    names = sorted(path.name for path in layout.generations.iterdir())
    assert names == [f"{number:06d}.json" for number in range(5, 13)]
    assert read_generation(layout.generation(5)).segments == generation.segments


def test_generations_that_were_given_up_are_dropped(layout: Layout) -> None:
    """Their segments are cleared by the next writer, so they must not be offered any more."""
    layout.current.write_text("000001.json")
    generation = commit(layout, read_current(layout), "tests")
    assert generation.number == 2
    assert sorted(path.name for path in layout.generations.iterdir()) == ["000001.json", "000002.json"]


def test_an_old_generation_that_cannot_be_removed_does_not_undo_a_commit(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest, "KEPT_GENERATIONS", 1)
    monkeypatch.setattr(Path, "unlink", mock.Mock(side_effect=OSError(28, "No space left on device")))
    assert commit(layout, read_current(layout), "tests").number == 4
    assert read_current(layout).number == 4


def test_a_commit_while_a_reader_opens_does_no_harm(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer may replace CURRENT between any two steps of a reader."""
    own = manifest.decode_or_corrupt
    writers = [lambda: commit(layout, read_current(layout), "tests")]

    def racing(path: Path, *arguments: object) -> object:
        if writers:
            writers.pop()()
        return own(path, *arguments)

    monkeypatch.setattr(manifest, "decode_or_corrupt", racing)
    assert read_current(layout).number == 4


def test_a_reader_keeps_its_generation(layout: Layout) -> None:
    reader = IndexReader(layout.root)
    generation = reader.generation
    for _ in range(10):
        generation = commit(layout, replace(generation, tombstones=(*generation.tombstones, 1)), "tests")
    grow(layout, generation)
    assert not layout.generation(3).exists()
    assert [found.id for found in reader.items()] == [0, 1, 2, 3, 4, 5]
    assert reader.vectors("e").shape == (6, 4)
    assert reader.attention("style", [5, 1])["q"][:, 0, 0, 0, 0].tolist() == [2, 1]
    assert [found.id for found in IndexReader(layout.root).items()] == [0, 2, 3, 4, 5, 6, 7, 8]


def test_dead_rows_are_left_out_everywhere(layout: Layout) -> None:
    commit(layout, replace(read_current(layout), tombstones=(0, 1, 2, 4)), "tests")
    reader = IndexReader(layout.root)
    assert len(reader) == 2
    assert reader.ids.tolist() == [3, 5]
    assert reader.items([1, 0]) == [item(5), item(3)]
    assert reader.vectors("e").tolist() == np.eye(4)[[3, 1]].tolist()
    assert reader.attention("style", [0])["v"].flatten().tolist() == [2] * 4
    assert reader.find("id", 4) == []
    assert reader.find("uri", "/photos/5.png") == reader.find_suffix("5.png") == [1]


# --- A full disk


@pytest.mark.skipif(not FULL_DEVICE.exists(), reason="needs /dev/full")
@pytest.mark.parametrize("kind", ["json", "parquet", "npy"])
def test_every_writer_says_that_the_disk_is_full(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"file.{kind}"
    (tmp_path / f".{path.name}.tmp").symlink_to(FULL_DEVICE)
    path.symlink_to(FULL_DEVICE)
    with pytest.raises(NoSpaceError, match="disk is full") as caught:  # noqa: PT012  (one of three)
        if kind == "json":
            atomic_write(path, b"x" * 100)
        elif kind == "parquet":
            write_rows(path, [item(number) for number in range(1000)], ITEM_SCHEMA)
        else:
            write_vectors(path, [np.zeros((1000, 100), np.float32)])
    assert str(path) in str(caught.value)


def test_a_write_that_stops_halfway_says_why(tmp_path: Path) -> None:
    """A limit on file sizes stands in for a disk that fills up: the first bytes fit, the rest does not."""
    own = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, own[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            write_vectors(tmp_path / "e.npy", [np.zeros((1000, 100), np.float32)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, own)
    assert caught.value.errno == errno.EFBIG


# --- One writer

HOLDER = """
import sys
from pathlib import Path
from index_store.errors import IndexLockedError
from index_store.layout import Layout
from index_store.lock import writer_lock
try:
    with writer_lock(Layout(Path(sys.argv[1]))):
        print("held", flush=True)
        sys.stdin.read()
except IndexLockedError as error:
    print(error, flush=True)
"""


def start_writer(root: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLDER, str(root)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path.cwd())


def test_a_second_process_is_refused_at_once_and_a_kill_frees_the_lock(layout: Layout) -> None:
    with start_writer(layout.root) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(IndexLockedError, match="another process is writing"), writer_lock(layout):
            pytest.fail("two writers")
        assert len(IndexReader(layout.root)) == 6  # readers do not care
        with start_writer(layout.root) as second:
            assert second.communicate()[0].startswith("another process is writing to ")
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    with writer_lock(layout):
        pass


def test_one_process_is_one_writer_too(layout: Layout) -> None:
    with writer_lock(layout), pytest.raises(IndexLockedError), writer_lock(layout):
        pytest.fail("two writers")
    with writer_lock(layout):
        pass
