"""Update, remove, compact, verify, repair and export, on the tiny model."""

import os
import shutil
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from index_store import segment_writer as segment_module
from index_store.commit import commit
from index_store.generation import read_current
from index_store.layout import Layout
from index_store.reader import IndexReader
from retrieval.errors import IndexCorruptError, UsageError
from retrieval.indexing.build import build_index
from retrieval.indexing.fill import fill_index
from retrieval.indexing.maintenance import compact, export, remove_items, repair, verify
from retrieval.indexing.reports import BuildEvent, BuildReport
from retrieval.search.engine import Engine
from tests.support.sample_index import RUN, Contents, paint
from tests.support.stub_models import tiny_model

pytestmark = pytest.mark.usefixtures("tiny")


@pytest.fixture
def built(tmp_path: Path) -> tuple[Path, Path]:
    """Ten images in two folders, and their index of three segments."""
    folder, index = tmp_path / "images", tmp_path / "images.diffsim"
    paint(folder / "a", range(6))
    paint(folder / "b", range(6, 10))
    update(folder, index)
    return folder, index


def update(folder: Path, index: Path) -> BuildReport:
    return build_index(folder, index, model="mini", modes=["style", "semantic"], run=RUN)


def by_name(index: Path) -> dict[str, int]:
    return {Path(item.uri).name: item.id for item in IndexReader(index).items()}


def test_a_renamed_file_keeps_its_id_and_its_tensors(built: tuple[Path, Path]) -> None:
    folder, index = built
    before, contents = by_name(index), Contents.of(index)
    (folder / "a" / "003.png").rename(folder / "b" / "new name.png")
    report = update(folder, index)
    assert (report.added, report.moved, report.removed, report.unchanged) == (0, 1, 0, 9)
    after = by_name(index)
    assert after["new name.png"] == before["003.png"]
    assert "003.png" not in after
    assert Contents.of(index).tensors == contents.tensors
    assert update(folder, index).unchanged == 10


def test_a_touched_file_is_looked_at_but_not_computed(built: tuple[Path, Path]) -> None:
    folder, index = built
    os.utime(folder / "a" / "001.png", (1, 1))
    report = update(folder, index)
    assert (report.added, report.moved, report.unchanged) == (0, 1, 9)
    assert update(folder, index).unchanged == 10


def test_vanished_files_leave_the_results_and_ids_are_not_given_again(built: tuple[Path, Path]) -> None:
    folder, index = built
    ids = by_name(index)
    (folder / "a" / "000.png").unlink()
    assert update(folder, index).removed == 1
    assert "000.png" not in by_name(index)
    paint(folder / "a", [0], seed=9)
    update(folder, index)
    assert by_name(index)["000.png"] > max(ids.values())


def test_only_what_lies_below_the_sources_can_vanish(built: tuple[Path, Path], tmp_path: Path) -> None:
    folder, index = built
    paint(tmp_path / "other", range(20, 23))
    assert update(tmp_path / "other", index).removed == 0
    assert len(by_name(index)) == 13
    shutil.rmtree(folder / "b")
    assert update(folder / "a", index).removed == 0
    assert update(folder, index).removed == 4
    sources = read_current(Layout(index)).sources
    assert {str(folder), str(tmp_path / "other")} == set(sources)


def test_a_folder_is_not_below_one_whose_name_begins_its_own(built: tuple[Path, Path]) -> None:
    folder, index = built
    paint(folder / "a b", [30])
    update(folder, index)
    shutil.rmtree(folder / "a b")
    assert update(folder / "a", index).removed == 0
    assert update(folder, index).removed == 1


def test_what_an_unreadable_folder_hides_does_not_vanish(
    built: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from retrieval.images.discovery import Listing, find_images
    from retrieval.indexing import changes as work

    folder, index = built

    def half_blind(sources: list[Path]) -> Listing:
        seen = find_images(sources)
        kept = tuple(name for name in seen.names if Path(name).parent.name != "b")
        return Listing(kept, seen.passed_over, (folder / "b",))

    monkeypatch.setattr(work, "find_images", half_blind)
    report = update(folder, index)
    assert (report.removed, report.items) == (0, 10)
    assert report.unreadable_folders == (str(folder / "b"),)


def test_removal_by_path_end_glob_and_id(built: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, index = built
    ids = by_name(index)
    monkeypatch.chdir(folder)
    assert remove_items(index, ["a/000.png", "b/*.png", f"id:{ids['001.png']}"]).removed == 6
    assert sorted(by_name(index)) == ["002.png", "003.png", "004.png", "005.png"]
    for pattern in ("a/000.png", "*.jpg", "id:99"):
        with pytest.raises(UsageError, match="fits no item"):
            remove_items(index, [pattern])
    assert update(folder, index).added == 6  # the files are still there


def test_compaction_changes_nothing_but_the_segments(built: tuple[Path, Path]) -> None:
    folder, index = built
    (folder / "a" / "002.png").rename(folder / "a" / "z.png")
    (folder / "b" / "broken.png").write_text("no picture")
    update(folder, index)
    remove_items(index, ["005.png"])
    before = Contents.of(index)
    opened = Engine.open(index)
    query = folder / "a" / "001.png"
    answers = [(r.id, r.path, r.score) for r in opened.search(query, exhaustive=True)]
    change = compact(index)
    assert (change.items, change.segments) == (9, 1)
    assert Contents.of(index).differences(before) == []
    assert read_current(Layout(index)).tombstones == ()
    assert [(r.id, r.path, r.score) for r in Engine.open(index).search(query, exhaustive=True)] == answers
    assert [(r.id, r.path, r.score) for r in opened.search(query, exhaustive=True)] == answers  # an older generation
    assert compact(index, now=True).segments == 1
    assert len(list((index / "items").iterdir())) == 1
    assert Contents.of(index).differences(before) == []


def test_retired_segments_go_after_a_day_and_never_when_the_clock_went_back(
    built: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, index = built

    class Clock(datetime):
        ahead = timedelta(0)

        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return datetime.now(UTC) + cls.ahead

    monkeypatch.setattr(segment_module, "datetime", Clock)
    compact(index)
    for ahead, left in ((timedelta(hours=-30), 4), (timedelta(hours=23), 4), (timedelta(hours=25), 1)):
        Clock.ahead = ahead
        update(folder, index)
        assert len(list((index / "items").iterdir())) == left


def test_an_emptied_index_compacts_and_fills_again(built: tuple[Path, Path]) -> None:
    folder, index = built
    remove_items(index, [str(folder / "*")])
    assert compact(index, now=True).items == 0
    assert len(Engine.open(index).search(folder / "a" / "000.png")) == 0
    assert update(folder, index).added == 10


def test_export_is_readable_by_others(built: tuple[Path, Path], tmp_path: Path) -> None:
    _, index = built
    export(index, tmp_path / "out")
    table = pq.read_table(tmp_path / "out" / "items.parquet")
    vectors = np.load(tmp_path / "out" / "descriptor.npy")
    assert table.num_rows == len(vectors) == 10
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    with pytest.raises(UsageError, match="not empty"):
        export(index, tmp_path / "out")


def damage(path: Path) -> None:
    """Flip one bit: of a shard in its first row, of anything else in the middle."""
    data = bytearray(path.read_bytes())
    data[10 if path.name == "0" else len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("victim", "lost"),
    [
        ("items/000002/items.parquet", 4),
        ("items/000002/rejects.parquet", 4),
        ("items/000003/vectors/descriptor.npy", 4),
        ("attention/style/000002.zarr/k/c/0/0/0/0/0", 1),
        ("CURRENT", 0),
    ],
)
def test_damage_is_found_taken_out_and_computed_again(built: tuple[Path, Path], victim: str, lost: int) -> None:
    folder, index = built
    whole = Contents.of(index)
    assert verify(index) == []
    damage(index / victim)
    found = verify(index)
    assert len(found) == 1
    damaged = victim.partition("/k/")[0]  # of tensors the group is named, and the row
    assert str(index / damaged) in found[0].what
    assert repair(index).damages == found
    assert verify(index) == []
    assert len(IndexReader(index)) == 10 - lost
    report = update(folder, index)
    assert report.items == 10
    assert report.added == lost
    again = Contents.of(index)
    assert sorted(again.tensors["style/k"]) == sorted(whole.tensors["style/k"])


@pytest.mark.parametrize(
    ("one", "other", "lost"),
    [
        ("000002.zarr/q/c/0", "000002.zarr/q/c/1", 4),
        ("000002.zarr/q/c/1", "000003.zarr/q/c/1", 4),
        ("000002.zarr/q/c/0", "000002.zarr/v/c/0", 2),
        ("000002.zarr", "000003.zarr", 8),
    ],
)
def test_shards_that_changed_places_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one: str, other: str, lost: int
) -> None:
    """Every row of them matches its own checksum."""
    monkeypatch.setattr("index_store.tensors.attention.SHARD_ROWS", 2)
    folder, index = tmp_path / "images", tmp_path / "images.diffsim"
    paint(folder, range(10))
    update(folder, index)
    whole = Contents.of(index)
    paths = [index / "attention" / "style" / name for name in (one, other)]
    paths[0].rename(tmp_path / "aside")
    paths[1].rename(paths[0])
    (tmp_path / "aside").rename(paths[1])
    found = verify(index)
    assert sum(len(damage.rows) for damage in found) == lost
    assert all("holds another shard in the place of shard" in damage.what for damage in found)
    repair(index)
    assert verify(index) == []
    assert update(folder, index).added == lost
    assert sorted(Contents.of(index).tensors["style/q"]) == sorted(whole.tensors["style/q"])


def test_an_index_whose_shards_were_not_noted_is_verified_as_before(built: tuple[Path, Path]) -> None:
    """As version 0.1.0 was at first: without the file."""
    _, index = built
    generation = read_current(Layout(index))
    segments = []
    for segment in generation.segments:
        Layout(index).shards(segment.name).unlink()
        files = {name: record for name, record in segment.files.items() if name != "shards.json"}
        segments.append(replace(segment, files=files))
    commit(Layout(index), replace(generation, segments=tuple(segments)), "tests")
    assert verify(index) == []
    assert compact(index).items == 10
    assert verify(index) == []


def test_where_current_is_lost_only_generations_that_are_still_whole_are_offered(built: tuple[Path, Path]) -> None:
    folder, index = built
    layout = Layout(index)

    def offered() -> list[str]:
        kept = layout.current.read_bytes()
        layout.current.unlink()
        with pytest.raises(IndexCorruptError, match="is missing") as caught:
            Engine.open(index)
        names = str(caught.value).partition("write its name into it: ")[2]
        for name in names.split(", ") if names else []:
            layout.current.write_text(name)
            assert verify(index) == []
        layout.current.write_bytes(kept)
        return names.split(", ") if names else []

    assert offered() == ["000002.json", "000003.json", "000004.json"]
    compact(index)
    assert offered() == ["000003.json", "000004.json", "000005.json"], "the old segments are kept for a day"
    paint(folder / "a", ["new.png"])
    update(folder, index)
    compact(index, now=True)
    newest = read_current(layout).number
    assert offered() == [f"{newest:06d}.json"], "the first is empty: a build after it would clear all away"
    layout.generation(newest - 1).write_text("{}")
    assert offered() == [f"{newest:06d}.json"]
    shutil.rmtree(next((index / "attention" / "style").iterdir()))
    assert offered() == []


def test_a_missing_shard_costs_its_rows_and_no_more(built: tuple[Path, Path]) -> None:
    _, index = built
    (index / "attention/style/000003.zarr/v/c/0/0/0/0/0").unlink()
    (found,) = verify(index)
    assert "missing" in found.what
    assert found.rows == (0, 1, 2, 3)
    repair(index)
    assert len(IndexReader(index)) == 6


def test_without_a_whole_generation_there_is_nothing_to_repair(built: tuple[Path, Path]) -> None:
    _, index = built
    for path in (index / "generations").glob("*.json"):
        damage(path)
    assert len(verify(index)) == 1
    with pytest.raises(IndexCorruptError, match="build it anew"):
        repair(index)


class AnyHistory(RuleBasedStateMachine):
    """Whatever happens to a folder and its index, it answers like a fresh index of the folder as it is."""

    names = st.sampled_from([f"{n}.png" for n in range(7)])

    @initialize(lazy=st.booleans())
    def start(self, lazy: bool) -> None:
        import tempfile

        self.root = Path(tempfile.mkdtemp())
        self.folder, self.index = self.root / "images", self.root / "images.diffsim"
        self.seed = 0
        self.modes = ["style"]
        self.truth: dict[tuple[str, str], float | None] = {}  # by mode and SHA-256, the score that fresh indexes gave
        paint(self.folder, ["keep.png"])
        self.build(self.index, "lazy" if lazy else "eager")

    def build(self, index: Path, rule: Any = None) -> None:
        with tiny_model():
            build_index(self.folder, index, model="mini", modes=self.modes, run=replace(RUN, attention=rule))

    def write(self, name: str) -> None:
        self.seed += 1
        paint(self.folder, [name], seed=self.seed)

    @rule(name=names)
    def add_or_change(self, name: str) -> None:
        self.write(name)

    @rule(old=names, new=names)
    def rename(self, old: str, new: str) -> None:
        if (self.folder / old).exists():
            (self.folder / old).replace(self.folder / new)

    @rule(name=names)
    def copy(self, name: str) -> None:
        shutil.copy(self.folder / "keep.png", self.folder / name)

    @rule(name=names)
    def delete(self, name: str) -> None:
        (self.folder / name).unlink(missing_ok=True)

    @rule(name=names)
    def spoil(self, name: str) -> None:
        (self.folder / name).write_bytes(b"no picture")

    @rule(name=names)
    def remove_from_the_index(self, name: str) -> None:
        if name in by_name(self.index):
            remove_items(self.index, [str(self.folder / name)])

    @rule(now=st.booleans())
    def compact(self, now: bool) -> None:
        compact(self.index, now)

    @rule(mode=st.sampled_from(["semantic", "instance"]))
    def add_a_mode(self, mode: str) -> None:
        self.modes = list(dict.fromkeys([*self.modes, mode]))
        self.build(self.index)

    @rule(rule=st.sampled_from(["eager", "lazy"]))
    def change_the_rule(self, rule: str) -> None:
        self.build(self.index, rule)

    @rule(order=st.sampled_from(["newest", "oldest", "path", "like:keep.png"]), data=st.data())
    def fill(self, order: str, data: st.DataObject) -> None:
        """All of it, or a batch."""
        mode = data.draw(st.sampled_from(self.modes))

        def stop(event: BuildEvent) -> None:
            if event.kind == "batch":
                raise KeyboardInterrupt

        with tiny_model(), suppress(KeyboardInterrupt):
            on_event = stop if data.draw(st.booleans()) else lambda event: None
            fill_index(self.index, modes=[mode], order=[order], run=RUN, on_event=on_event)

    @rule()
    def lose_the_cache(self) -> None:
        shutil.rmtree(self.index / "cache", ignore_errors=True)

    @rule()
    def search_what_is_outdated(self) -> None:
        """Files may be gone or others by now: what is scored all the same is scored as what was indexed."""
        mode = self.modes[-1]
        with tiny_model():
            results = Engine.open(self.index).search(self.folder / "keep.png", mode, exhaustive=True, k=100)
        for result in results:
            assert self.truth.get((mode, result.sha256), result.score) == result.score

    @rule()
    def answers_like_a_fresh_index(self) -> None:
        fresh = self.root / "fresh.diffsim"
        self.build(self.index)
        self.build(fresh)
        with tiny_model():
            assert self.answers(self.index) == self.answers(fresh)
        assert verify(self.index) == []
        shutil.rmtree(fresh)

    def answers(self, index: Path) -> list[list[tuple[str, float | None]]]:
        engine = Engine.open(index)
        query, mode = self.folder / "keep.png", self.modes[-1]
        exact = engine.search(query, mode, exhaustive=True, k=100)
        coarse = engine.search(query, mode, rerank=False, k=100)
        assert exact.left_out == 0
        self.truth |= {(mode, result.sha256): result.score for result in exact}
        # Ids differ between the two, and so may the order of equal scores: those of copies.
        return [sorted((r.path, r.score) for r in exact), sorted((r.path, r.coarse_score) for r in coarse)]

    def teardown(self) -> None:
        if hasattr(self, "root"):
            self.answers_like_a_fresh_index()
            shutil.rmtree(self.root)


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(
    max_examples=6,
    stateful_step_count=16,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # shrinking builds indexes for minutes
)
