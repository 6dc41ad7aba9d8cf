"""Keep the samples of random pairs up to date: drawn where they are missing, or where the index has changed by much."""

import hashlib
import json
import logging
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from index_store.calibration.record import ScoreSample, read_sample, write_sample
from index_store.reader import IndexReader
from index_store.remote.mirror import find_mirror
from retrieval.calibration.percentiles import Percentiles
from retrieval.calibration.sampling import plan_pairs, sample_scores
from retrieval.encoding.loaded_models import LoadedModels
from retrieval.encoding.recipe import stored_recipe
from retrieval.progress import Cancellation

LOG = logging.getLogger(__name__)

LEAST_IMAGES = 32  # with stored tensors; the pairs of fewer say little about the next picture
CHANGED_SHARE = 0.25  # of the images may be new or gone since pairs were drawn


def modes_due(reader: IndexReader) -> tuple[str, ...]:
    """Return the modes whose sample is missing or old, and whose stored tensors are enough for one.

    An index in an object store gets none: reading a thousand images from there would cost more than it tells.
    """
    if find_mirror(reader.layout) is not None:
        return ()
    return tuple(mode for mode in reader.generation.modes if _is_due(reader, mode))


def calibrate(
    reader: IndexReader,
    models: LoadedModels,
    on_mode: Callable[[str], None] = lambda mode: None,
    cancel: Cancellation | None = None,
) -> tuple[str, ...]:
    """Draw random pairs for the modes that are due, and return these. The caller holds the writer's lock.

    Args:
        reader: the index as it was committed.
        models: those of the index.
        on_mode: called with each mode before its pairs are scored.
        cancel: stops the work between blocks of pairs; finished modes are kept.

    Raises:
        CancelledError: it was stopped.
        IndexCorruptError: tensors are damaged.
        NoSpaceError, MemoryFullError: the disk or the memory is full.
    """
    modes = modes_due(reader)
    roles_differ = stored_recipe(reader, reader.layout.root).settings.noise == "pairwise"
    for mode in modes:
        on_mode(mode)
        rows = _population(reader, mode)
        plan = plan_pairs(rows, reader.row_bytes(mode), roles_differ)
        scores: list[float] = []
        for block in sample_scores(reader, models, mode, plan):
            scores += [round(score, 6) for score in block]
            if cancel is not None:
                cancel.check()
        if scores:
            ids, number = reader.ids[rows], reader.generation.number
            sample = ScoreSample(mode, _digest(reader, mode), number, len(rows), int(ids.max()) + 1, tuple(sorted(scores)))
            write_sample(reader.layout, sample)
            LOG.info("%s: scored %d random pairs of %s", reader.layout.root, len(scores), mode)
    return modes


def read_percentiles(reader: IndexReader, mode: str) -> Percentiles | None:
    """Return the percentiles of a mode; None if the index has none that fit it."""
    sample = read_sample(reader.layout, mode, _digest(reader, mode))
    return None if sample is None else Percentiles(sample.scores)


def _is_due(reader: IndexReader, mode: str) -> bool:
    ids = reader.ids[_population(reader, mode)]
    if len(ids) < LEAST_IMAGES:
        return False
    sample = read_sample(reader.layout, mode, _digest(reader, mode))
    if sample is None:
        return True
    new = int((ids >= sample.next_id).sum())
    return new + abs(sample.items - (len(ids) - new)) > CHANGED_SHARE * sample.items


def _population(reader: IndexReader, mode: str) -> NDArray[np.int64]:
    """Return the rows that pairs are drawn from: those whose tensors are stored."""
    rows: NDArray[np.int64] = np.flatnonzero(reader.has_tensors(mode))
    return rows


def _digest(reader: IndexReader, mode: str) -> str:
    """Return a digest of everything but the images that a mode's scores depend on."""
    fingerprint = reader.generation.fingerprint
    parts = {name: value for name, value in fingerprint.items() if name not in ("encoders", "modes")}
    parts["mode"] = {"name": mode, **fingerprint["modes"].get(mode, {})}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
