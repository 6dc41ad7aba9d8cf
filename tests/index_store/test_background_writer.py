"""Files written in threads: what is there at the end, what is raised, and that a commit counts as writing."""

import threading
import time
from pathlib import Path

import pytest

from index_store.errors import NoSpaceError
from index_store.tensors import background_writer as background
from index_store.tensors.background_writer import WAITING, BackgroundWriter
from retrieval import build_index
from tests.support.faults import path_of
from tests.support.sample_index import RUN, paint


def test_files_are_whole_and_were_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[str] = []
    monkeypatch.setattr(background, "_flush", lambda file: flushed.append(str(path_of(file))))
    files = BackgroundWriter()
    for number in range(3 * WAITING):
        files.write(tmp_path / "c" / str(number), lambda number=number: memoryview(bytes([number]) * 1000))
    files.finish()
    written = [tmp_path / "c" / str(number) for number in range(3 * WAITING)]
    assert [path.read_bytes() for path in written] == [bytes([number]) * 1000 for number in range(3 * WAITING)]
    assert sorted(flushed) == sorted(map(str, written))
    files.write(tmp_path / "one more", lambda: memoryview(b"x"))
    files.finish()
    assert (tmp_path / "one more").read_bytes() == b"x"


def test_a_bounded_number_of_files_waits(tmp_path: Path) -> None:
    files, go, begun = BackgroundWriter(), threading.Event(), []

    def begin_all() -> None:
        for number in range(WAITING + 1):
            files.write(tmp_path / str(number), lambda: go.wait(60) and memoryview(b""))
            begun.append(number)

    thread = threading.Thread(target=begin_all)
    thread.start()
    thread.join(0.2)
    assert len(begun) <= WAITING
    go.set()
    thread.join(60)
    assert len(begun) == WAITING + 1
    files.finish()


def test_what_failed_is_raised_by_the_next_call_and_every_one_after(tmp_path: Path) -> None:
    def full() -> memoryview:
        raise NoSpaceError("the disk is full")

    files = BackgroundWriter()
    files.write(tmp_path / "a", full)
    for _ in range(2):
        with pytest.raises(NoSpaceError):
            files.finish()
    for number in range(WAITING - 1):
        files.write(tmp_path / str(number), lambda: memoryview(b""))
    with pytest.raises(NoSpaceError):
        files.write(tmp_path / "b", lambda: memoryview(b""))
    files.drop()


def test_after_a_drop_nothing_is_written_any_more(tmp_path: Path) -> None:
    files, go = BackgroundWriter(), threading.Event()
    for number in range(WAITING):
        files.write(tmp_path / str(number), lambda: go.wait(60) and memoryview(b"x"))
    threading.Timer(0.05, go.set).start()
    files.drop()
    there = sorted(path.name for path in tmp_path.iterdir())
    assert len(there) == background.THREADS
    time.sleep(0.05)
    assert sorted(path.name for path in tmp_path.iterdir()) == there


def test_a_commit_counts_as_writing(tmp_path: Path, tiny: None, monkeypatch: pytest.MonkeyPatch) -> None:
    paint(tmp_path / "photos", range(4))
    monkeypatch.setattr("index_store.segment_writer.fsync_tree", lambda tree: time.sleep(0.2))
    report = build_index(tmp_path / "photos", tmp_path / "index", model="mini", modes=["style"], run=RUN)
    assert report.speeds["write"] <= 4 / 0.2
