"""Files written in threads: what is there at the end, what is raised, and that a commit counts as writing."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from index_store.errors import NoSpaceError
from index_store.tensors import background_writer as background
from index_store.tensors.background_writer import WAITING, BackgroundWriter
from retrieval import build_index
from tests.support.faults import path_of
from tests.support.sample_index import RUN, paint

SECONDS = 60  # after which a test that hangs fails


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


class Gate:
    """Bytes of files that are all held back until the gate opens; counts the files that wait at it."""

    def __init__(self) -> None:
        self.arrived = threading.Semaphore(0)
        self.open = threading.Event()

    def bytes(self) -> memoryview:
        self.arrived.release()
        assert self.open.wait(SECONDS)
        return memoryview(b"x")

    def wait_for(self, count: int) -> None:
        for _ in range(count):
            assert self.arrived.acquire(timeout=SECONDS)


def test_a_bounded_number_of_files_waits(tmp_path: Path) -> None:
    files, gate, begun = BackgroundWriter(), Gate(), []

    def begin_one_too_many() -> None:
        for number in range(WAITING + 1):
            if number == WAITING:
                full.set()
            files.write(tmp_path / str(number), gate.bytes)
            begun.append(number)

    full = threading.Event()
    thread = threading.Thread(target=begin_one_too_many)
    thread.start()
    assert full.wait(SECONDS)
    gate.wait_for(background.THREADS)
    thread.join(0.1)  # time for a writer without a bound to show itself; with one it makes no difference
    assert len(begun) == WAITING
    gate.open.set()
    thread.join(SECONDS)
    assert len(begun) == WAITING + 1
    files.finish()
    assert len(list(tmp_path.iterdir())) == WAITING + 1


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


def test_after_a_drop_nothing_is_written_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, gate = BackgroundWriter(), Gate()
    for number in range(WAITING):
        files.write(tmp_path / str(number), gate.bytes)
    gate.wait_for(background.THREADS)  # each thread holds a file; the others wait for a thread
    own = ThreadPoolExecutor.shutdown

    def shutdown(self: ThreadPoolExecutor, wait: bool = True, *, cancel_futures: bool = False) -> None:
        own(self, wait=False, cancel_futures=cancel_futures)
        gate.open.set()  # only now, so that no thread takes a file that was to be cancelled
        own(self, wait=wait)

    monkeypatch.setattr(ThreadPoolExecutor, "shutdown", shutdown)
    files.drop()
    assert len(list(tmp_path.iterdir())) == background.THREADS
    assert not gate.arrived.acquire(blocking=False), "no other file was begun"


def test_a_commit_counts_as_writing(tmp_path: Path, tiny: None, monkeypatch: pytest.MonkeyPatch) -> None:
    paint(tmp_path / "photos", range(4))
    monkeypatch.setattr("index_store.segment_writer.fsync_tree", lambda tree: time.sleep(0.2))  # or longer
    report = build_index(tmp_path / "photos", tmp_path / "index", model="cells", modes=["style"], run=RUN)
    assert report.speeds["write"] <= 4 / 0.2
