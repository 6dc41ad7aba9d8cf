"""Encode some images into one finished segment: the unit of work that another process or machine can do.

A job writes the segment's files and flushes them. The segment counts once the driver has committed its record
(:class:`retrieval.indexing.committer.SegmentCommitter`), so a job never touches the generation.
"""

import math
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from index_store.catalog import Reject, uri_of
from index_store.catalog_files.sources import Source
from index_store.generation import SegmentRecord
from index_store.layout import Layout
from index_store.segment_writer import SegmentWriter
from retrieval.encoding.batches import Failure, FileBatch
from retrieval.encoding.encoded_batches import InFlightBatch
from retrieval.encoding.loaded_models import ModelInputs
from retrieval.encoding.timing import WRITE, StageClock
from retrieval.errors import NoSpaceError
from retrieval.images.decoding import FileFacts
from retrieval.indexing.changes import item_of
from retrieval.indexing.pipeline import Pipeline
from retrieval.indexing.reports import BuildEvent, OnBuildProgress
from retrieval.models.modes import Outputs
from retrieval.progress import Cancellation, ignore_progress

_Batch = TypeVar("_Batch")


@dataclass(frozen=True)
class SegmentJob:
    """Images that become one segment. It holds plain data, so that it can be sent to another process."""

    root: Path  # of the index
    name: str  # of the segment; no other segment has it
    files: Sequence[Path]
    first_id: int  # items get this id and the following ones; jobs of one build have ranges apart
    outputs: Outputs
    commit_seconds: float = math.inf  # the job ends early when its first batch is this old
    sources: tuple[Source, ...] = ()  # of the index: paths below one are kept relative to it


@dataclass(frozen=True)
class FinishedSegment:
    """A segment whose files are flushed to the disk, and the facts that its commit needs."""

    record: SegmentRecord | None  # None: no batch was complete, and no file is left
    images: int  # files of the job, or items to fill, that were dealt with: the first ones, in order
    next_id: int = 0  # the first id that is still free
    uris: tuple[str, ...] = ()  # of the items
    rejected_uris: tuple[str, ...] = ()
    partial: Mapping[str, str] = field(default_factory=dict)  # by path: what was used of an item whose file is cut
    filled: tuple[int, ...] = ()  # ids of older items that got something
    seconds: float = 0.0  # that a worker spent on the job
    stopped: BaseException | None = None  # ended the job after its last complete batch; the driver raises it


class SegmentLimit:
    """Says when a segment must end: after ``commit_seconds``, or when the work was asked to stop."""

    def __init__(self, commit_seconds: float, cancel: Cancellation | None = None) -> None:
        self._seconds, self._cancel = commit_seconds, cancel
        self._began: float | None = None

    def allows_more(self, batch: object = None) -> bool:
        """Whether another batch may follow ``batch``; the time counts from the first call."""
        now = time.monotonic()
        self._began = now if self._began is None else self._began
        return now - self._began < self._seconds and not (self._cancel and self._cancel.is_requested)


def segment_job(
    job: SegmentJob,
    pipeline: Pipeline,
    on_progress: OnBuildProgress = ignore_progress,
    cancel: Cancellation | None = None,
) -> FinishedSegment:
    """Encode the images of ``job`` and write them as one segment.

    Ctrl-C, a cancellation and an error end the job early. Its complete batches make a finished segment all the same.

    Args:
        job: the images, and where their segment goes.
        pipeline: the loaded models of the index's recipe, and the batch size.
        on_progress: called after every batch with the counts of this job.
        cancel: looked at between batches.

    Raises:
        NoSpaceError: the disk is full; the segment's files are removed.
    """
    limit = SegmentLimit(job.commit_seconds, cancel)
    writer = SegmentWriter(Layout(job.root), job.name, pipeline.models.codec.name, job.sources)
    partial: dict[str, str] = {}

    def append(encoded: tuple[FileBatch, InFlightBatch]) -> int:
        batch, in_flight = encoded
        _append(writer, batch, in_flight, job.first_id + writer.items, pipeline.clock)
        partial.update(_partial_images(batch))
        on_progress(BuildEvent("encode", len(writer), len(job.files), rejected=len(writer.rejected_uris)))
        return len(batch.files)

    batches = pipeline.run(job.files, job.outputs, usable_images, limit.allows_more)
    return replace(write_segment(writer, batches, append, pipeline.clock, job.first_id), partial=partial)


def usable_images(batch: FileBatch) -> list[ModelInputs]:
    """Return the images of a batch that could be read."""
    return [outcome[1] for outcome in batch.outcomes if not isinstance(outcome, Failure)]


def _append(writer: SegmentWriter, batch: FileBatch, in_flight: InFlightBatch, first: int, clock: StageClock) -> None:
    """Append the images of a batch as items from the id ``first`` on, and its failures as rejects."""
    both = zip(batch.files, batch.outcomes, strict=True)
    rejects = [_reject(path, outcome) for path, outcome in both if isinstance(outcome, Failure)]
    facts = [outcome[0] for outcome in batch.outcomes if not isinstance(outcome, Failure)]
    with clock.working(WRITE, len(facts)):
        stored = in_flight.stored()
        rejects += [_not_finite(facts[number]) for number in stored.unusable]
        usable = [each for number, each in enumerate(facts) if number not in stored.unusable]
        items = [item_of(each, number) for number, each in enumerate(usable, first)]
        writer.append(items, rejects, stored.vectors, stored.tensors)


def _not_finite(facts: FileFacts) -> Reject:
    detail = "the model gives numbers for it that are infinite or not a number"
    return Reject(uri_of(facts.path), facts.size, facts.mtime_ns, "not_finite", detail)


def _partial_images(batch: FileBatch) -> dict[str, str]:
    facts = [outcome[0] for outcome in batch.outcomes if not isinstance(outcome, Failure)]
    return {str(each.path): each.partial for each in facts if each.partial}


def _reject(path: Path, failure: Failure) -> Reject:
    return Reject(uri_of(path), failure.size, failure.mtime_ns, failure.error.reason, failure.error.detail)


def write_segment(
    writer: SegmentWriter,
    batches: Generator[_Batch, None, None],
    append: Callable[[_Batch], int],
    clock: StageClock,
    first_id: int = 0,
) -> FinishedSegment:
    """Append every batch and finish the segment.

    Args:
        writer: the new segment.
        batches: closed at the end.
        append: appends one batch to ``writer`` and returns how many images it dealt with.
        clock: counts the time of finishing as writing.
        first_id: of the segment's own items, if it has any.

    Raises:
        NoSpaceError: the disk is full; the segment's files are removed.
    """
    images, stopped = 0, None
    with closing(batches):
        try:
            for batch in batches:
                images += append(batch)
        except NoSpaceError:
            writer.discard()  # it can't be finished, and its files only take space
            raise
        except BaseException as error:
            stopped = error
        with clock.working(WRITE, 0):  # its images were counted as they were appended
            record, interrupt = _finish(writer)
    uris, rejected = tuple(writer.uris), tuple(writer.rejected_uris)
    next_id = first_id + (record.rows if record else 0)
    return FinishedSegment(record, images, next_id, uris, rejected, stopped=stopped or interrupt)


def _finish(writer: SegmentWriter) -> tuple[SegmentRecord | None, BaseException | None]:
    """Finish the segment, or discard it where no batch is complete; return an interrupt that came meanwhile, too."""
    if not writer.is_whole or not len(writer):
        writer.discard()
        return None, None
    try:
        return writer.finish(), None
    except NoSpaceError:
        writer.discard()
        raise
    except BaseException as interrupt:
        return writer.finish(), interrupt  # goes on where it was interrupted
