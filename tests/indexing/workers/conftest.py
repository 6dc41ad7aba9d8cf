"""Workers without processes: each is one of this process that a thread of the pool calls."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from retrieval.errors import WorkerLostError
from retrieval.indexing.workers.worker import AnySpec, Job, WorkerSpec
from tests.indexing.builds import build

Losing = Callable[[Job], bool]


class HereWorker:
    """A worker in this process; ``is_lost`` chooses jobs after which it never answers."""

    is_lost: Losing = staticmethod(lambda job: False)

    def __init__(self, spec: AnySpec) -> None:
        # Not its threads: they would be those of the whole test.
        self._killed = False
        self._worker = (replace(spec, threads=None) if isinstance(spec, WorkerSpec) else spec).open()

    def do(self, job: Job) -> Any:
        finished = self._worker.do(job)
        if self._killed or self.is_lost(job):
            raise WorkerLostError("the machine is gone, its segment lies there")
        return finished

    @staticmethod
    def begin() -> None:
        """Nothing to import."""

    def close(self) -> None:
        """Nothing to end."""

    def kill(self) -> None:
        """Let the job in hand end without an answer."""
        self._killed = True


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
