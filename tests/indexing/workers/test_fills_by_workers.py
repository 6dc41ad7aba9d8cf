"""Fills and checks that workers do give what one process gives."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from index_store.generation import read_current
from index_store.layout import Layout
from retrieval.errors import CancelledError
from retrieval.indexing.fill_job import FillSegmentJob
from retrieval.indexing.upkeep.repairing import verify
from retrieval.indexing.workers.worker import Job
from retrieval.progress import Cancellation
from retrieval.settings import WorkerSettings
from tests.indexing.builds import LAZY, break_file, build, fill
from tests.indexing.workers.conftest import HereWorker
from tests.support.commands import failed, run_here
from tests.support.faults import flip_bit
from tests.support.sample_index import RUN, Contents, paint

IMAGES = 23
POOL = WorkerSettings("processes", 2)
BY_TWO = replace(RUN, pool=POOL)


@pytest.mark.usefixtures("here")
def test_a_fill_by_workers_is_that_of_one_process(photos: Path, index: Path, local: Path) -> None:
    build(photos, index, LAZY)
    report = fill(index, run=BY_TWO)
    assert (report.completed, report.incomplete) == (IMAGES, 0)
    assert Contents.of(index).differences(Contents.of(local)) == []
    assert verify(index) == []
    assert fill(index, run=BY_TWO).completed == 0


@pytest.mark.usefixtures("here")
def test_files_that_changed_are_left_out(photos: Path, index: Path) -> None:
    build(photos, index, LAZY)
    sizes = {path.name: path.stat().st_size for path in photos.iterdir()}
    paint(photos, [4], seed=9)
    (photos / "004.png").write_bytes((photos / "004.png").read_bytes()[: sizes["004.png"]].ljust(sizes["004.png"]))
    break_file(photos / "011.png")
    report = fill(index, run=BY_TWO)
    assert (report.completed, report.incomplete) == (IMAGES - 2, 2)


def test_a_lost_worker_costs_its_segment_only(photos: Path, index: Path, local: Path, here: type[HereWorker]) -> None:
    build(photos, index, LAZY)
    lost: list[str] = []

    def is_lost(job: Job) -> bool:
        if isinstance(job, FillSegmentJob) and not lost:
            lost.append(job.name)
            return True
        return False

    here.is_lost = staticmethod(is_lost)
    assert fill(index, run=BY_TWO).completed == IMAGES
    assert len(lost) == 1
    assert Contents.of(index).differences(Contents.of(local)) == []


@pytest.mark.usefixtures("here")
def test_workers_add_modes_to_older_items(photos: Path, index: Path, local: Path) -> None:
    build(photos, index, modes=["style"])
    report = build(photos, index, BY_TWO)
    assert (report.added, report.completed) == (0, IMAGES)
    assert Contents.of(index).differences(Contents.of(local)) == []


@pytest.mark.usefixtures("here")
def test_workers_find_the_damage_that_one_process_finds(photos: Path, index: Path) -> None:
    build(photos, index)
    assert verify(index, pool=POOL) == []
    layout, segments = Layout(index), read_current(Layout(index)).segments
    assert len(segments) > 3
    flip_bit(layout.items(segments[1].name), 40)
    shutil.rmtree(layout.attention("style", segments[3].name))
    found = verify(index, pool=POOL)
    assert found == verify(index)
    assert {damage.segment for damage in found} == {segments[1].name, segments[3].name}


@pytest.mark.usefixtures("here")
def test_a_check_can_be_stopped(photos: Path, index: Path) -> None:
    build(photos, index)
    cancel = Cancellation()
    cancel.request()
    with pytest.raises(CancelledError):
        verify(index, cancel=cancel, pool=POOL)


def test_real_processes_check_an_index(photos: Path, index: Path) -> None:
    build(photos, index)
    assert verify(index, pool=WorkerSettings("processes", 1)) == []


def test_a_repair_is_done_by_one_process(local: Path, tmp_path: Path) -> None:
    refused = run_here("diffsim-index", "verify", "--index", local, "--repair", "--processes", "2", cwd=tmp_path)
    assert "workers only look for damage" in failed(refused, 2)
