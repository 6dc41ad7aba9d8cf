"""Replicas that are lost, generations that come and go: answers stay right, or are one clear error."""

import shutil
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from retrieval import Engine
from retrieval.errors import IndexStoreError, ReplicaLostError
from retrieval.indexing.build import build_index
from retrieval.indexing.upkeep.compacting import compact
from retrieval.search.replicas.fleet import Fleet
from retrieval.search.replicas.partition_index import PartAsk, PartNearest
from retrieval.search.replicas.replica import Replica, ReplicaSpec
from retrieval.search.replicas.transport import LocalReplica, LocalTransport
from retrieval.settings import BuildSettings
from tests.search.replicas.conftest import LOAD, ON_CPU, Open
from tests.search.replicas.questions import KINDS, Asked, assert_same_answer
from tests.support.sample_index import paint

RUN = BuildSettings(device="cpu", batch_size=4, workers=1, segment_rows=4)


@pytest.fixture
def asked(gallery: Path) -> Asked:
    return KINDS["box"](sorted(gallery.rglob("*.png")), 5)


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The replicas that can't be opened again, by number."""
    numbers: list[int] = []
    whole = LocalTransport.open

    def opened(self: LocalTransport, number: int) -> LocalReplica:
        if number in numbers:
            raise ReplicaLostError("the cluster has no room")
        return whole(self, number)

    monkeypatch.setattr(LocalTransport, "open", opened)
    return numbers


def kill(fleet: Fleet, number: int) -> None:
    handle = fleet.replica(number)
    assert handle is not None
    handle.close()


def wait_until(is_true: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not is_true():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_with_two_holders_no_question_fails(
    segments: Path, opened: Open, alone: Engine, asked: Asked, refused: list[int]
) -> None:
    index, engine = opened(segments, 3, 2, patience=0.0)
    refused.append(1)
    kill(index.fleet, 1)
    for _ in range(3):
        assert_same_answer(asked.of(engine), asked.of(alone))
    assert index.fleet.alive == 2
    refused.clear()
    wait_until(lambda: index.fleet.alive == 3)
    kill(index.fleet, 2)  # whose partitions the new replica 1 holds, too
    assert_same_answer(asked.of(engine), asked.of(alone))


def test_the_only_holder_is_replaced_while_questions_wait(
    segments: Path, opened: Open, alone: Engine, asked: Asked
) -> None:
    index, engine = opened(segments, 3)
    kill(index.fleet, 0)
    assert_same_answer(asked.of(engine), asked.of(alone))
    wait_until(lambda: index.fleet.alive == 3)


def test_others_take_over_where_no_replica_can_be_opened(
    segments: Path, opened: Open, alone: Engine, asked: Asked, refused: list[int]
) -> None:
    index, engine = opened(segments, 3)
    refused.extend([0, 1])
    kill(index.fleet, 0)
    assert_same_answer(asked.of(engine), asked.of(alone))
    kill(index.fleet, 1)
    assert_same_answer(asked.of(engine), asked.of(alone))
    assert index.fleet.alive == 1


def test_a_replica_that_hangs_counts_as_lost(
    segments: Path, opened: Open, alone: Engine, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    index, engine = opened(segments, 3, 2, patience=0.0)
    gate, hung, whole = threading.Event(), list[int](), Replica.nearest

    def hang(self: Replica, number: int, partition: int, asks: Sequence[PartAsk]) -> list[PartNearest]:
        if partition == 1 and not hung:
            hung.append(partition)
            gate.wait(30)
        return whole(self, number, partition, asks)

    monkeypatch.setattr(Replica, "nearest", hang)
    monkeypatch.setattr(index.fleet, "_most_seconds", 0.3)
    assert_same_answer(asked.of(engine), asked.of(alone))
    assert hung == [1]
    gate.set()
    wait_until(lambda: index.fleet.alive == 3)


def test_without_any_replica_the_error_says_so(
    segments: Path, opened: Open, asked: Asked, refused: list[int], alone: Engine
) -> None:
    index, engine = opened(segments, 2, patience=0.0)
    refused.extend([0, 1])
    kill(index.fleet, 0)
    kill(index.fleet, 1)
    with pytest.raises(ReplicaLostError, match="0 of 2 replicas answer"):
        asked.of(engine)
    refused.clear()
    wait_until(lambda: index.fleet.alive == 2)
    assert_same_answer(asked.of(engine), asked.of(alone))


def test_replicas_lost_under_load_cost_no_answer(segments: Path, opened: Open, alone: Engine, asked: Asked) -> None:
    index, engine = opened(segments, 3, 2)
    expected, found, failures = asked.of(alone), [], []

    def ask() -> None:
        for _ in range(6):
            try:
                found.append(asked.of(engine))
            except Exception as error:
                failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in (0, 2):
        wait_until(lambda: index.fleet.alive == 3)
        kill(index.fleet, number)
        wait_until(lambda number=number: index.fleet.replica(number) is None or not _any_alive(threads))  # type: ignore[misc]
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(found) == 12
    for each in found:
        assert_same_answer(each, expected)


def _any_alive(threads: list[threading.Thread]) -> bool:
    return any(thread.is_alive() for thread in threads)


@pytest.fixture
def growing(tmp_path: Path, segments: Path) -> Path:
    """A copy of the index that a test may change."""
    shutil.copytree(segments, tmp_path / "growing.diffsim")
    return tmp_path / "growing.diffsim"


def test_a_new_generation_takes_the_place_of_the_old_one(growing: Path, opened: Open, tmp_path: Path) -> None:
    index, old = opened(growing, 3)
    paint(tmp_path / "more", range(10))
    build_index(tmp_path / "more", growing, run=RUN, load=LOAD)
    asked, ours = Asked(tmp_path / "more" / "003.png", choices={"exhaustive": True, "k": 99}), Engine.open
    new = index.open(growing, ON_CPU, LOAD)
    assert len(asked.of(old)) == 40, "the old generation still answers"
    assert_same_answer(asked.of(new), asked.of(ours(growing, ON_CPU, LOAD)))
    assert len(asked.of(new)) == 50
    kill(index.fleet, 1)
    assert len(asked.of(old)) == 40, "a new replica opens both"
    wait_until(lambda: index.fleet.alive == 3)
    compact(growing)
    newest = index.open(growing, ON_CPU, LOAD)
    assert_same_answer(asked.of(newest), asked.of(ours(growing, ON_CPU, LOAD)))
    with pytest.raises(IndexStoreError, match="is not open on the replicas any more"):
        asked.of(old)


def test_a_generation_that_cannot_be_opened_leaves_the_old_one(
    growing: Path, opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: Asked
) -> None:
    index, engine = opened(growing, 2)
    before = asked.of(engine)
    paint(tmp_path / "more", range(4))
    build_index(tmp_path / "more", growing, run=RUN, load=LOAD)

    def broken(self: Replica, number: int, partitions: object) -> object:
        raise IndexStoreError("a disk of the replica can't be read")

    with monkeypatch.context() as patched:
        patched.setattr(Replica, "open", broken)
        with pytest.raises(IndexStoreError, match="can't be read"):
            index.open(growing, ON_CPU, LOAD)
    assert_same_answer(asked.of(engine), before)
    assert len(index.open(growing, ON_CPU, LOAD)) == 44


def test_a_new_replica_does_without_an_old_generation_that_is_gone(
    growing: Path, opened: Open, tmp_path: Path, asked: Asked
) -> None:
    index, old = opened(growing, 2, patience=0.0)
    paint(tmp_path / "more", range(4))
    build_index(tmp_path / "more", growing, run=RUN, load=LOAD)
    new = index.open(growing, ON_CPU, LOAD)
    assert len(asked.of(old)) == 10
    (growing / "generations" / f"{old.catalogue.generation:06d}.json").unlink()
    kill(index.fleet, 0)
    with pytest.raises(ReplicaLostError):
        asked.of(new)
    wait_until(lambda: index.fleet.alive == 2)
    assert_same_answer(asked.of(new), asked.of(Engine.open(growing, ON_CPU, LOAD)))


def test_a_fleet_that_cannot_start_leaves_nothing(segments: Path, refused: list[int]) -> None:
    refused.append(1)
    before = threading.active_count()
    with pytest.raises(ReplicaLostError, match="no room"):
        Fleet(LocalTransport(ReplicaSpec(str(segments), ON_CPU, load=LOAD)), 3)
    wait_until(lambda: threading.active_count() <= before)
