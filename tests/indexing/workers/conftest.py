"""Workers without processes: each is a SegmentWorker that a thread of the pool calls."""

from collections.abc import Callable
from pathlib import Path

import pytest

from retrieval.indexing.segment_job import FinishedSegment, SegmentJob
from retrieval.indexing.workers.worker import SegmentWorker, WorkerLostError, WorkerSpec
from tests.indexing.builds import build

Losing = Callable[[SegmentJob], bool]


class HereWorker(SegmentWorker):
    """A worker in this process; ``is_lost`` chooses jobs after which it never answers."""

    is_lost: Losing = staticmethod(lambda job: False)

    def __init__(self, spec: WorkerSpec) -> None:
        super().__init__(
            WorkerSpec(spec.index, spec.settings, spec.targets, spec.fingerprint, spec.run, None, spec.load)
        )

    def write(self, job: SegmentJob) -> FinishedSegment:
        finished = super().write(job)
        if self.is_lost(job):
            raise WorkerLostError("the machine is gone, its segment lies there")
        return finished

    def close(self) -> None:
        """Nothing to end."""


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> type[HereWorker]:
    """Builds with processes use threads of this one; the class may be told which jobs lose their worker."""
    worker = type("Worker", (HereWorker,), {})
    monkeypatch.setattr("retrieval.indexing.workers.opening.ProcessWorker", worker)
    return worker


@pytest.fixture
def local(photos: Path, tmp_path: Path) -> Path:
    """The index that one process makes of the photos."""
    build(photos, tmp_path / "local.diffsim")
    return tmp_path / "local.diffsim"
