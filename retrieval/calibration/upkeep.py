"""Keep the samples of random pairs up to date: drawn where they are missing, or where the index has changed by much."""

import hashlib
import json
import logging
from collections.abc import Callable, Generator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index_store.calibration.record import ScoreSample, read_sample, write_sample
from index_store.reader import IndexReader
from index_store.remote.mirror import find_mirror
from retrieval.calibration.coarse import slope_of
from retrieval.calibration.pair_jobs import PairsJob, ScoreJobs
from retrieval.calibration.percentiles import Percentiles
from retrieval.calibration.sampling import ScoredPairs, pair_jobs, plan_pairs
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
    score: ScoreJobs,
    on_mode: Callable[[str], None] = lambda mode: None,
    cancel: Cancellation | None = None,
) -> tuple[str, ...]:
    """Draw random pairs for the modes that are due, and return these. The caller holds the writer's lock.

    Args:
        reader: the index as it was committed.
        score: scores the blocks of all modes, one after another or side by side.
        on_mode: called with each mode before its pairs are scored.
        cancel: stops the work between blocks of pairs; finished modes are kept.

    Raises:
        CancelledError: it was stopped.
        IndexCorruptError: tensors are damaged.
        NoSpaceError, MemoryFullError: the disk or the memory is full.
    """
    roles_differ = stored_recipe(reader, reader.layout.root).settings.noise == "pairwise"
    populations = {mode: _population(reader, mode) for mode in modes_due(reader)}
    plans = {mode: plan_pairs(rows, reader.row_bytes(mode), roles_differ) for mode, rows in populations.items()}

    def jobs() -> Generator[PairsJob, None, None]:
        for mode, plan in plans.items():
            on_mode(mode)
            yield from pair_jobs(reader, mode, plan)

    scored = score(jobs())
    for mode, plan in plans.items():
        blocks = []
        for block in plan.blocks:
            blocks.append(ScoredPairs.of_block(block, next(scored)))
            if cancel is not None:
                cancel.check()
        if any(len(block.scores) for block in blocks):
            write_sample(reader.layout, _sample(reader, mode, populations[mode], ScoredPairs.join(blocks)))
            LOG.info("%s: scored random pairs of %s", reader.layout.root, mode)
    return tuple(plans)


def _sample(reader: IndexReader, mode: str, rows: NDArray[np.int64], pairs: ScoredPairs) -> ScoreSample:
    return ScoreSample(
        mode=mode,
        digest=sample_digest(reader, mode),
        generation=reader.generation.number,
        items=len(rows),
        next_id=int(reader.ids[rows].max()) + 1,
        scores=tuple(sorted(np.round(pairs.scores, 6).tolist())),
        slope=slope_of(reader, mode, pairs),
    )


@dataclass(frozen=True)
class Calibration:
    """What an index knows about the scores of one mode."""

    percentiles: Percentiles
    slope: float | None  # of scores over cosines of coarse vectors


def read_calibration(reader: IndexReader, mode: str) -> Calibration | None:
    """Return what is known about the scores of a mode; None if the index has no sample that fits it."""
    sample = read_sample(reader.layout, mode, sample_digest(reader, mode))
    return None if sample is None else Calibration(Percentiles(sample.scores), sample.slope)


def _is_due(reader: IndexReader, mode: str) -> bool:
    ids = reader.ids[_population(reader, mode)]
    if len(ids) < LEAST_IMAGES:
        return False
    sample = read_sample(reader.layout, mode, sample_digest(reader, mode))
    if sample is None:
        return True
    new = int((ids >= sample.next_id).sum())
    return new + abs(sample.items - (len(ids) - new)) > CHANGED_SHARE * sample.items


def _population(reader: IndexReader, mode: str) -> NDArray[np.int64]:
    """Return the rows that pairs are drawn from: those whose tensors are stored."""
    rows: NDArray[np.int64] = np.flatnonzero(reader.has_tensors(mode))
    return rows


def sample_digest(reader: IndexReader, mode: str) -> str:
    """Return a digest of everything but the images that a mode's scores depend on."""
    fingerprint = reader.generation.fingerprint
    parts = {name: value for name, value in fingerprint.items() if name not in ("encoders", "modes")}
    parts["mode"] = {"name": mode, **fingerprint["modes"].get(mode, {})}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
