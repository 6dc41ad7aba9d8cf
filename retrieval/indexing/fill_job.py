"""Compute outputs that older items miss, into one finished segment: the unit of work of a fill."""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from index_store.layout import Layout
from index_store.segment_writer import SegmentWriter
from retrieval.encoding.batches import Failure, FileBatch
from retrieval.encoding.encoded_batches import InFlightBatch
from retrieval.encoding.loaded_models import ModelInputs
from retrieval.encoding.timing import WRITE
from retrieval.indexing.pipeline import Pipeline
from retrieval.indexing.reports import BuildEvent, OnBuildProgress
from retrieval.indexing.segment_job import FinishedSegment, SegmentLimit, write_segment
from retrieval.models.modes import Outputs
from retrieval.progress import Cancellation, ignore_progress


@dataclass(frozen=True)
class FillSegmentJob:
    """Items whose missing outputs become one filled segment. It holds plain data, so that it can be sent away."""

    root: Path  # of the index
    name: str  # of the segment; no other segment has it
    files: Sequence[Path]  # of the items
    ids: Sequence[int]  # of the items
    digests: Sequence[str]  # SHA-256 of the files as they were indexed
    outputs: Outputs
    commit_seconds: float = math.inf  # the job ends early when its first batch is this old


def fill_segment_job(
    job: FillSegmentJob,
    pipeline: Pipeline,
    on_progress: OnBuildProgress = ignore_progress,
    cancel: Cancellation | None = None,
) -> FinishedSegment:
    """Compute the outputs of ``job`` and write them as one segment; a file that has changed is left out.

    Ctrl-C, a cancellation and an error end the job early. Its complete batches make a finished segment all the same.

    Args:
        job: the items, and where their segment goes.
        pipeline: the loaded models of the index's recipe, and the batch size.
        on_progress: called after every batch with the counts of this job.
        cancel: looked at between batches.

    Raises:
        NoSpaceError: the disk is full; the segment's files are removed.
    """
    limit = SegmentLimit(job.commit_seconds, cancel)
    writer = SegmentWriter(Layout(job.root), job.name, pipeline.models.codec.name)
    unchanged, filled, done = _UnchangedFiles(job, pipeline.batch), list[int](), 0

    def append(encoded: tuple[FileBatch, InFlightBatch]) -> int:
        nonlocal done
        batch, in_flight = encoded
        ids = unchanged.next_ids()
        if ids:
            with pipeline.clock.working(WRITE, len(ids)):
                stored = in_flight.stored()
                ids = [number for place, number in enumerate(ids) if place not in stored.unusable]
                if ids:
                    writer.fill(ids, stored.vectors, stored.tensors)
        filled.extend(ids)
        done += len(batch.files)
        on_progress(BuildEvent("encode", done, len(job.files)))
        return len(batch.files)

    batches = pipeline.run(job.files, job.outputs, unchanged.images, limit.allows_more)
    return replace(write_segment(writer, batches, append, pipeline.clock), filled=tuple(filled))


class _UnchangedFiles:
    """Picks the images of each batch whose file is still the one that was indexed."""

    def __init__(self, job: FillSegmentJob, batch: int) -> None:
        self._job, self._batch, self._start = job, batch, 0
        self._picked: deque[list[int]] = deque()  # ids, by batch

    def images(self, batch: FileBatch) -> list[ModelInputs]:
        """Return the unchanged images of the next batch, in order; runs while earlier ones are computed."""
        part = slice(self._start, self._start + self._batch)
        self._start = part.stop
        known = zip(self._job.ids[part], self._job.digests[part], batch.outcomes, strict=True)
        same = [
            (number, outcome[1])
            for number, digest, outcome in known
            if not isinstance(outcome, Failure) and outcome[0].sha256 == digest
        ]
        self._picked.append([number for number, _ in same])
        return [image for _, image in same]

    def next_ids(self) -> list[int]:
        """Return the ids that :meth:`images` picked from the oldest batch that was not asked for yet."""
        return self._picked.popleft()
