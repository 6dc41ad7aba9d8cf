"""An index that workers build is the one that a single process builds, whatever happens to the workers."""

import os
import shutil
import signal
import threading
from concurrent.futures import Future, wait
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from index_store.generation import read_current
from index_store.layout import Layout
from index_store.reader import IndexReader
from retrieval.errors import IndexIncompatibleError, UsageError, WorkerLostError
from retrieval.indexing.reports import BuildEvent
from retrieval.indexing.segment_job import SegmentJob
from retrieval.indexing.upkeep.repairing import repair, verify
from retrieval.indexing.workers import driver
from retrieval.indexing.workers.pool import WorkerPool
from retrieval.indexing.workers.processes import ProcessWorker
from retrieval.indexing.workers.worker import AnySpec, Job, WorkerSpec
from retrieval.progress import Cancellation
from retrieval.settings import WorkerSettings
from tests.indexing.builds import build, reasons_of
from tests.indexing.workers.conftest import HereWorker
from tests.support.sample_index import RUN, Contents, paint

IMAGES = 23
BY_TWO = replace(RUN, pool=WorkerSettings("processes", 2))


@pytest.mark.usefixtures("here")
def test_the_index_is_that_of_one_process(photos: Path, index: Path, local: Path) -> None:
    events: list[BuildEvent] = []
    report = build(photos, index, BY_TWO, on_progress=events.append)
    assert Contents.of(index).differences(Contents.of(local)) == []
    assert (report.added, report.items, verify(index)) == (IMAGES, IMAGES, [])
    assert [event.done for event in events if event.stage == "encode"][-1] == IMAGES
    assert build(photos, index, BY_TWO).added == 0


@pytest.mark.usefixtures("here")
def test_segments_that_are_finished_are_committed_together(
    photos: Path, index: Path, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    futures: list[Future[Any]] = []
    submit, events = WorkerPool.submit, list[BuildEvent]()

    def noted(pool: WorkerPool, job: Job) -> "Future[Any]":
        futures.append(submit(pool, job))
        return futures[-1]

    def wait_for_all(future: "Future[Any]", cancel: Cancellation | None) -> Any:
        wait(futures)
        return future.result()

    monkeypatch.setattr(WorkerPool, "submit", noted)
    monkeypatch.setattr(driver, "wait_for", wait_for_all)
    build(photos, index, BY_TWO, on_progress=events.append)
    commits = [event.done for event in events if event.stage == "commit"]
    assert len(futures) > len(commits) == 1
    assert len(read_current(Layout(index)).segments) == len(futures)
    assert Contents.of(index).differences(Contents.of(local)) == []


@pytest.mark.usefixtures("here")
def test_rejects_changes_and_removals(photos: Path, index: Path, tmp_path: Path) -> None:
    (photos / "004.png").write_bytes(b"no image")
    build(photos, index, BY_TWO)
    assert reasons_of(index) == {"004.png": "not_an_image"}
    paint(photos, range(3), seed=1)
    (photos / "009.png").unlink()
    report = build(photos, index, BY_TWO)
    build(photos, tmp_path / "fresh.diffsim")
    found, fresh = Contents.of(index), Contents.of(tmp_path / "fresh.diffsim")
    assert (report.replaced, report.removed) == (3, 1)
    assert {(item.uri, item.sha256) for item in found.items} == {(item.uri, item.sha256) for item in fresh.items}
    ids = [item.id for item in found.items]
    assert ids == sorted(set(ids))


def test_lost_workers_cost_their_unfinished_segments_only(
    photos: Path, index: Path, local: Path, here: type[HereWorker]
) -> None:
    lost: list[str] = []

    def is_lost(job: Job) -> bool:
        assert isinstance(job, SegmentJob)
        if len(lost) < 2 and job.first_id in (6, 12) and not job.name.endswith("-2"):
            lost.append(job.name)
            return True
        return False

    here.is_lost = staticmethod(is_lost)
    build(photos, index, BY_TWO)
    assert len(lost) == 2
    assert Contents.of(index).differences(Contents.of(local)) == []
    left = [path for path in (index / "items").iterdir() if path.name in lost]
    assert len(left) == 2, "the lost workers' segments lie there, and no generation names them"
    build(photos, index)
    assert not any(path.exists() for path in left)


def test_a_job_that_loses_every_worker_stops_the_build_and_keeps_the_rest(
    photos: Path, index: Path, local: Path, here: type[HereWorker]
) -> None:
    here.is_lost = staticmethod(lambda job: isinstance(job, SegmentJob) and job.first_id == 6)
    with pytest.raises(WorkerLostError):
        build(photos, index, BY_TWO)
    assert len(IndexReader(index)) == 6, "segments before the lost one"
    here.is_lost = staticmethod(lambda job: False)
    build(photos, index, BY_TWO)
    assert Contents.of(index).differences(Contents.of(local)) == []


@pytest.mark.usefixtures("here")
def test_a_stopped_build_goes_on(photos: Path, index: Path, local: Path) -> None:
    def stop(event: BuildEvent) -> None:
        if event.stage == "commit":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(photos, index, BY_TWO, on_progress=stop)
    assert 0 < len(IndexReader(index)) < IMAGES
    build(photos, index, BY_TWO)
    assert Contents.of(index).differences(Contents.of(local)) == []


@pytest.mark.usefixtures("here")
def test_a_lost_generation_is_put_together_from_segments_that_waited_for_their_commit(
    photos: Path, index: Path, local: Path
) -> None:
    build(photos, index, BY_TWO)
    for path in (index / "generations").iterdir():
        path.unlink()
    (index / "CURRENT").unlink()
    repair(index)
    assert Contents.of(index).differences(Contents.of(local)) == []


def test_a_worker_with_other_weights_is_refused(photos: Path, index: Path, here: type[HereWorker]) -> None:
    def changed(self: HereWorker, spec: AnySpec) -> None:
        assert isinstance(spec, WorkerSpec)
        HereWorker.__init__(self, replace(spec, fingerprint={**spec.fingerprint, "model": {"name": "other"}}))

    here.__init__ = changed  # type: ignore[method-assign,assignment]
    with pytest.raises(IndexIncompatibleError, match="other models"):
        build(photos, index, BY_TWO)
    assert len(IndexReader(index)) == 0


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(("seconds", "expected"), [(0.0, RUN.batch_size), (1e6, RUN.segment_rows)])
def test_jobs_are_as_long_as_a_commit_may_wait(
    photos: Path, index: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, expected: int
) -> None:
    monkeypatch.setattr(driver, "FIRST_BATCHES", 1)
    monkeypatch.setattr(driver, "JOBS_A_WORKER", 1)
    build(photos, index, replace(RUN, pool=WorkerSettings("processes", 1), commit_seconds=seconds))
    rows = [segment.rows for segment in read_current(Layout(index)).segments]
    assert rows[0] == RUN.batch_size
    assert set(rows[2:-1]) == {expected}


@pytest.mark.parametrize("settings", [{"kind": "threads"}, {"count": 0}, {"cpus": -1}])
def test_settings_that_make_no_sense(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        WorkerSettings(**settings)


@pytest.mark.xdist_group("processes")
@pytest.mark.thorough
def test_real_processes_and_one_that_is_killed(
    photos: Path, index: Path, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first process is killed before its first job; another one does it."""
    opened: list[int] = []

    class Killed(ProcessWorker):
        def __init__(self, spec: AnySpec) -> None:
            super().__init__(spec)
            assert self.pid is not None
            opened.append(self.pid)
            if len(opened) == 1:
                os.kill(self.pid, signal.SIGKILL)

    monkeypatch.setattr("retrieval.indexing.workers.opening.ProcessWorker", Killed)
    build(photos, index, replace(RUN, pool=WorkerSettings("processes", 1)))
    assert len(opened) == 2
    assert Contents.of(index).differences(Contents.of(local)) == []
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("worker-0") and not thread.daemon]
    shutil.rmtree(index)
