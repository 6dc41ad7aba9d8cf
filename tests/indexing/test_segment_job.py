"""Segments as units of work: made in another process, committed by the driver; and work that is asked to stop."""

import multiprocessing
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from index_store.commit import commit
from index_store.generation import Generation, read_current
from index_store.layout import Layout
from index_store.reader import IndexReader
from retrieval.encoding.recipe import Recipe, new_recipe
from retrieval.encoding.timing import StageClock
from retrieval.errors import CancelledError
from retrieval.images.discovery import find_images
from retrieval.indexing.committer import SegmentCommitter
from retrieval.indexing.pipeline import Pipeline
from retrieval.indexing.reports import BuildEvent
from retrieval.indexing.segment_job import FinishedSegment, SegmentJob, segment_job
from retrieval.indexing.tally import ProgressTally
from retrieval.indexing.upkeep.compacting import compact
from retrieval.indexing.upkeep.repairing import verify
from retrieval.progress import Cancellation, Progress, ignore_progress
from tests.indexing.builds import BOTH, LAZY, build, build_modes, fill, reasons_of
from tests.support.sample_index import RUN, Contents
from tests.support.stub_models import TinyExtractor, load_tiny

MODES = ["style", "semantic"]


def pipeline_of(recipe: Recipe) -> Pipeline:
    """Load the tiny model for a recipe."""
    models = load_tiny(recipe.settings, recipe.targets, "cpu", True)
    return Pipeline.begin(models, RUN, StageClock(1))


def work(recipe: Recipe, job: SegmentJob) -> FinishedSegment:
    """Do a job; runs in a process of its own."""
    return segment_job(job, pipeline_of(recipe))


def empty_index(index: Path, recipe: Recipe) -> SegmentCommitter:
    """Commit an index without images, and return the committer that goes on from it."""
    fingerprint = pipeline_of(recipe).models.fingerprint()
    names = tuple(fingerprint["encoders"]), tuple(recipe.targets)
    empty = commit(Layout(index), Generation(0, fingerprint, recipe.to_json(), (), *names), "tests")
    return SegmentCommitter(Layout(index), empty, RUN, ProgressTally(ignore_progress, StageClock(1)))


@pytest.mark.thorough
def test_segments_made_by_another_process_are_the_index_that_one_build_makes(photos: Path, tmp_path: Path) -> None:
    """Two jobs, ids with gaps between their ranges, and a reject; committed in the order of their ids."""
    (photos / "004.png").write_bytes(b"no image")
    index, recipe = tmp_path / "jobs.diffsim", new_recipe(MODES, {"model": "cells", "codec": "qkv-float16"}, RUN)
    committer, files = empty_index(index, recipe), find_images([photos]).files
    jobs = [SegmentJob(index, f"job-{n}", files[n : n + 6], 100 * n, recipe.wanted) for n in (0, 6)]
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as processes:
        segments = list(processes.map(work, [recipe] * 2, jobs))
    assert len(IndexReader(index)) == 0, "nothing counts before the driver commits it"
    for segment in segments:
        committer.commit([segment], {})
    with pytest.raises(ValueError, match="ids below 605"):
        committer.commit([work(recipe, replace(jobs[0], name="late"))], {})
    build(photos, tmp_path / "whole.diffsim")
    found, whole = Contents.of(index), Contents.of(tmp_path / "whole.diffsim")
    assert [item.id for item in found.items] == [*range(5), *range(600, 605)]
    assert replace(found, items=whole.items).differences(whole) == []
    assert [replace(item, id=0) for item in found.items] == [replace(item, id=0) for item in whole.items]
    assert reasons_of(index) == {"004.png": "not_an_image"}
    assert committer.generation.next_id == 605
    assert verify(index) == []


def test_a_job_tells_what_its_commit_needs(photos: Path, tmp_path: Path) -> None:
    (photos / "001.png").write_bytes(b"no image")
    recipe, events = new_recipe(MODES, {"model": "cells", "codec": "qkv-float16"}, RUN), list[BuildEvent]()
    job = SegmentJob(tmp_path / "x", "one", find_images([photos]).files[:5], 7, recipe.wanted)
    segment = segment_job(pickle.loads(pickle.dumps(job)), pipeline_of(recipe), events.append)
    assert segment.record is not None
    assert (segment.record.name, segment.record.rows, segment.record.rejects) == ("one", 4, 1)
    assert (segment.images, segment.next_id, segment.stopped) == (5, 11, None)
    assert [Path(uri).name for uri in segment.uris] == ["000.png", "002.png", "003.png", "004.png"]
    assert [Path(uri).name for uri in segment.rejected_uris] == ["001.png"]
    assert [(event.stage, event.done, event.total, event.rejected) for event in events] == [
        ("encode", 2, 5, 1),
        ("encode", 4, 5, 1),
        ("encode", 5, 5, 1),
    ]


def test_a_job_that_fails_hands_over_its_complete_batches(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, index = new_recipe(MODES, {"model": "cells", "codec": "qkv-float16"}, RUN), tmp_path / "x.diffsim"
    extract, calls = TinyExtractor.extract, list[int]()

    def fail_at_last(self: TinyExtractor, *arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("the third batch")
        return extract(self, *arguments)

    monkeypatch.setattr(TinyExtractor, "extract", fail_at_last)
    committer = empty_index(index, recipe)
    segment = work(recipe, SegmentJob(index, "one", find_images([photos]).files, 0, recipe.wanted))
    assert segment.images == 4
    with pytest.raises(RuntimeError, match="the third batch"):
        committer.commit([segment], {})
    assert [Path(item.uri).name for item in IndexReader(index).items()] == [f"00{n}.png" for n in range(4)]


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("is_done", [False, True])
def test_an_interrupt_during_a_commit_tells_what_is_kept(
    photos: Path, index: Path, monkeypatch: pytest.MonkeyPatch, is_done: bool
) -> None:
    """The signal comes before or after CURRENT is replaced. The command line says how many images are done."""
    interrupts, events = [KeyboardInterrupt()], list[BuildEvent]()

    def interrupted(*arguments: Any) -> Generation:
        stored = commit(*arguments) if is_done or not interrupts else None
        if interrupts:
            raise interrupts.pop()
        assert stored is not None
        return stored

    monkeypatch.setattr("retrieval.indexing.committer.commit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build(photos, index, on_progress=events.append)
    assert len(IndexReader(index)) == 4
    assert [event.done for event in events if event.stage == "commit"] == [4]


# --- Asked to stop


def cancelling(cancel: Cancellation, stage: str, done: int = 0) -> Callable[[Progress], None]:
    """Listen, and ask the work to stop from another thread when it is so far."""

    def on_progress(event: Progress) -> None:
        if event.stage == stage and event.done >= done:
            thread = threading.Thread(target=cancel.request)
            thread.start()
            thread.join()

    return on_progress


@pytest.mark.usefixtures("tiny")
def test_a_build_that_is_asked_to_stop_keeps_every_complete_batch_and_goes_on(photos: Path, tmp_path: Path) -> None:
    build(photos, tmp_path / "whole.diffsim")
    index = tmp_path / "x.diffsim"
    for kept in (4, 8):  # the second batch is being computed when the first asks for the stop
        cancel = Cancellation()
        with pytest.raises(CancelledError):
            build(photos, index, on_progress=cancelling(cancel, "encode", 2), cancel=cancel)
        assert len(IndexReader(index)) == kept
    assert build(photos, index, cancel=Cancellation()).items == 11
    assert Contents.of(index).differences(Contents.of(tmp_path / "whole.diffsim")) == []


@pytest.mark.usefixtures("tiny")
def test_a_build_that_is_asked_to_stop_at_its_last_image_has_ended(photos: Path, index: Path) -> None:
    cancel = Cancellation()
    assert build(photos, index, on_progress=cancelling(cancel, "encode", 11), cancel=cancel).items == 11
    assert cancel.is_requested


@pytest.mark.usefixtures("tiny")
def test_a_fill_that_is_asked_to_stop_keeps_every_complete_batch_and_goes_on(photos: Path, index: Path) -> None:
    build_modes(photos, index, BOTH, LAZY)
    cancel = Cancellation()
    with pytest.raises(CancelledError):
        fill(index, on_progress=cancelling(cancel, "encode", 2), cancel=cancel)
    assert int(IndexReader(index).has_tensors("style").sum()) == 4
    assert fill(index).completed == 7


@pytest.mark.usefixtures("tiny")
def test_compaction_and_verification_that_are_asked_to_stop_leave_the_index_as_it_is(photos: Path, index: Path) -> None:
    build(photos, index)
    before, events = read_current(Layout(index)), list[Progress]()
    for command, stage in ((compact, "copy"), (verify, "verify")):
        cancel = Cancellation()
        cancel.request()
        with pytest.raises(CancelledError):
            command(index, cancel=cancel)
        assert read_current(Layout(index)) == before
        command(index, on_progress=events.append)
        assert {event.stage for event in events} == {stage}
        assert all(0 <= event.done <= event.total for event in events)
        events.clear()
        before = read_current(Layout(index))
