"""Derived files after a build or fill: IVF indexes of large encoders, and the scores of random pairs."""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

from index_store.reader import IndexReader
from index_store.vectors import training
from retrieval.calibration.pair_jobs import score_here
from retrieval.calibration.upkeep import calibrate, modes_due
from retrieval.encoding.loaded_models import LoadedModels
from retrieval.errors import CancelledError, DiffSimError
from retrieval.indexing.reports import BuildEvent, OnBuildProgress
from retrieval.indexing.workers.pool import WorkerPool
from retrieval.progress import Cancellation, ignore_progress

LOG = logging.getLogger(__name__)


def open_trained(root: Path, on_progress: OnBuildProgress = ignore_progress) -> IndexReader:
    """Train the IVF indexes that are missing or outdated, and return the index, opened.

    The caller holds the writer's lock. ``on_progress`` is called before each training, with the encoder as the note.
    """
    reader = IndexReader(root)

    def tell(encoder: str) -> None:
        on_progress(BuildEvent("train", 0, len(reader), encoder))

    training.train_where_due(reader.vector_reader, tell)
    return reader


def calibrate_where_due(
    reader: IndexReader,
    load: Callable[[], LoadedModels],
    on_progress: OnBuildProgress = ignore_progress,
    cancel: Cancellation | None = None,
    pool: WorkerPool | None = None,
) -> None:
    """Score random pairs of the modes whose sample is missing or outdated. The caller holds the writer's lock.

    A failure leaves the index as it is, without percentiles, because every image is stored already.

    Args:
        reader: the index as it was committed.
        load: returns the index's models; called only where a mode is due and no workers score.
        on_progress: called before each mode, with its name as the note.
        cancel: stops the work when another thread asks for it.
        pool: workers that score; None: this process does.
    """
    if not modes_due(reader):
        return
    try:
        score = partial(score_here, load()) if pool is None else pool.each
        calibrate(reader, score, lambda mode: on_progress(BuildEvent("calibrate", 0, len(reader), mode)), cancel)
    except CancelledError:
        raise
    except DiffSimError as error:
        LOG.warning("%s: no percentiles until the next build: %s", reader.layout.root, error)
