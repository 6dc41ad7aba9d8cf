"""Workers score the random pairs of percentiles, and get the numbers of one process."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from index_store.calibration.record import ScoreSample, read_sample
from index_store.reader import IndexReader
from retrieval.calibration import sampling
from retrieval.calibration.pair_jobs import PairsJob
from retrieval.calibration.upkeep import LEAST_IMAGES, sample_digest
from retrieval.indexing.fill import fill_index
from retrieval.indexing.workers.worker import Job
from retrieval.settings import WorkerSettings
from tests.indexing.builds import build
from tests.indexing.workers.conftest import HereWorker
from tests.support.sample_index import RUN, paint

MODES = ("style", "semantic")
FEW = replace(RUN, batch_size=16, segment_rows=64)


@pytest.fixture
def photos(tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Enough images for percentiles, whose pairs make several blocks."""
    monkeypatch.setattr(sampling, "PAIRS", 4 * LEAST_IMAGES)
    paint(tmp_path / "many", range(LEAST_IMAGES + 2))
    return tmp_path / "many"


def samples(index: Path) -> dict[str, ScoreSample]:
    reader = IndexReader(index)
    found = {mode: read_sample(reader.layout, mode, sample_digest(reader, mode)) for mode in MODES}
    return {mode: sample for mode, sample in found.items() if sample is not None}


def assert_same(found: dict[str, ScoreSample], expected: dict[str, ScoreSample]) -> None:
    assert found.keys() == expected.keys() == set(MODES)
    for mode, sample in found.items():
        assert replace(sample, scores=(), generation=0, slope=None) == replace(
            expected[mode], scores=(), generation=0, slope=None
        )
        np.testing.assert_allclose(sample.scores, expected[mode].scores, atol=1.5e-6)  # they have six decimals


@pytest.mark.parametrize("count", [1, 3])
def test_percentiles_do_not_depend_on_the_number_of_workers(
    photos: Path, local: Path, tmp_path: Path, here: type[HereWorker], count: int
) -> None:
    seen: list[str] = []

    def look(job: Job) -> bool:
        seen.extend([job.name] if isinstance(job, PairsJob) else [])
        return False

    here.is_lost = staticmethod(look)
    index = tmp_path / "by_workers.diffsim"
    build(photos, index, replace(FEW, pool=WorkerSettings("processes", count)))
    assert_same(samples(index), samples(local))
    assert len(set(seen)) == len(seen) >= 3 * len(MODES)


def test_a_worker_lost_among_pairs_changes_no_number(
    photos: Path, local: Path, tmp_path: Path, here: type[HereWorker]
) -> None:
    here.is_lost = staticmethod(lambda job: isinstance(job, PairsJob) and not job.name.endswith("-2"))
    index = tmp_path / "by_workers.diffsim"
    build(photos, index, replace(FEW, attention="lazy"))
    assert samples(index) == {}
    fill_index(index, run=replace(FEW, pool=WorkerSettings("processes", 2)))
    assert_same(samples(index), samples(local))


def test_without_workers_to_score_pairs_the_images_stay(
    photos: Path, tmp_path: Path, here: type[HereWorker], caplog: pytest.LogCaptureFixture
) -> None:
    here.is_lost = staticmethod(lambda job: isinstance(job, PairsJob))
    index = tmp_path / "by_workers.diffsim"
    assert build(photos, index, replace(FEW, pool=WorkerSettings("processes", 2))).items == LEAST_IMAGES + 2
    assert samples(index) == {}
    assert "no percentiles until the next build" in caplog.text
