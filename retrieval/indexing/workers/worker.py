"""One worker: it loads the models of an index once, and writes the segments that it is told to.

A worker may live in this process, in another one, or on another machine that sees the images and the index. It never
touches a generation: its segments count once the driver has committed them.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from time import monotonic
from typing import Any, Protocol

from index_store.remote.object_store import is_url
from index_store.remote.scratch import remove_scratch, scratch_mirror
from retrieval.calibration.pair_jobs import PairScorer, PairsJob, PlacedPairs
from retrieval.encoding.batches import workers
from retrieval.encoding.fingerprint import check_fingerprint
from retrieval.encoding.loaded_models import LoadModels, load_models
from retrieval.encoding.timing import StageClock
from retrieval.indexing.fill_job import FillSegmentJob, fill_segment_job
from retrieval.indexing.pipeline import Pipeline
from retrieval.indexing.segment_job import FinishedSegment, SegmentJob, segment_job
from retrieval.indexing.workers.verifier import SegmentVerifier, VerifySegmentJob
from retrieval.models.modes import Target
from retrieval.settings import BuildSettings, ModelSettings

Job = SegmentJob | FillSegmentJob | VerifySegmentJob | PairsJob
"""The work of one segment, or of one block of random pairs."""


class Worker(Protocol):
    """A worker as the driver sees it."""

    def do(self, job: Job) -> Any:
        """Do ``job`` and wait for its result: a :class:`FinishedSegment`, the damage that a check finds, or pairs.

        Raises:
            WorkerLostError: the worker is gone.
        """
        ...

    def close(self) -> None:
        """End a worker that has no job, or kill it where it does not answer."""
        ...

    def kill(self) -> None:
        """End the worker in mid-work, from another thread: a segment that it is writing does not count yet."""
        ...


class OpenedWorker(Protocol):
    """A worker in its own process."""

    def ready(self) -> int:
        """Return the number of this process; an answer says that the worker is open."""
        ...

    def do(self, job: Job) -> Any:
        """Do ``job``."""
        ...

    def close(self) -> None:
        """Remove the files that the worker keeps on its machine; it does no more jobs."""
        ...


class AnySpec(Protocol):
    """Everything that a worker needs before its first job, as plain data."""

    def open(self) -> OpenedWorker:
        """Open the worker in this process."""
        ...


@dataclass(frozen=True)
class WorkerSpec:
    """Everything that a worker needs before its first job, as plain data."""

    index: str  # its folder, which every machine sees under this path, or its URL
    settings: ModelSettings
    targets: Mapping[str, Target]  # by mode
    fingerprint: Mapping[str, Any]  # of the index
    run: BuildSettings  # with the batch size settled
    threads: int | None = None  # of torch, and for decoding; None: as many as the process finds
    load: LoadModels = load_models

    def open(self) -> "SegmentWorker":
        """Open the worker in this process; errors as in :class:`SegmentWorker`."""
        return SegmentWorker(self)


@dataclass(frozen=True)
class VerifierSpec:
    """What a worker needs that looks for damage: the index."""

    index: str  # its folder, which every machine sees under this path, or its URL

    def open(self) -> SegmentVerifier:
        """Open the worker in this process."""
        return SegmentVerifier(self.index)


class SegmentWorker:
    """A worker in this process."""

    def __init__(self, spec: WorkerSpec) -> None:
        """Load the models.

        Raises:
            IndexIncompatibleError: this machine's weights or libraries give other numbers than the index has.
            UsageError, ModelError: see :func:`retrieval.encoding.loaded_models.load_models`.
        """
        if spec.threads is not None:
            import torch

            torch.set_num_threads(spec.threads)
        self._mirror = scratch_mirror(spec.index) if is_url(spec.index) else None
        self._root = self._mirror.layout.root if self._mirror else Path(spec.index)
        models = spec.load(spec.settings, spec.targets, spec.run.device, spec.run.offline)
        models = models.limited(spec.run.max_pixels)
        check_fingerprint(spec.fingerprint, models.fingerprint(), Path(spec.index))
        run = replace(spec.run, workers=spec.run.workers or spec.threads)
        self._pipeline = Pipeline.begin(models, run, StageClock(workers(run)))

    def ready(self) -> int:
        """Return the number of this process; an answer says that the models are loaded."""
        return os.getpid()

    @cached_property
    def _scorer(self) -> PairScorer:
        return PairScorer(self._pipeline.models)

    def do(self, job: Job) -> FinishedSegment | PlacedPairs:
        """Write the segment of ``job``, or score its pairs; an index in an object store gets the segment uploaded.

        Raises:
            NoSpaceError, RemoteStoreError, MemoryFullError: see :mod:`retrieval.errors`.
        """
        return self._scorer(job) if isinstance(job, PairsJob) else self._write(job)

    def close(self) -> None:
        """See :class:`OpenedWorker`."""
        if self._mirror is not None:
            remove_scratch(self._mirror)

    def _write(self, job: Job) -> FinishedSegment:
        began = monotonic()
        if isinstance(job, FillSegmentJob):
            finished = fill_segment_job(replace(job, root=self._root), self._pipeline)
        elif isinstance(job, SegmentJob):
            finished = segment_job(replace(job, root=self._root), self._pipeline)
        else:
            raise TypeError(f"a worker with models writes segments, and does no {type(job).__name__}")
        if self._mirror is not None and finished.record is not None:
            self._mirror.send(finished.record)
        return replace(finished, seconds=monotonic() - began)
