"""The drawn gallery in ten segments, searched by one process and by replicas in threads of this one."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from retrieval import Engine, EngineSettings
from retrieval.encoding.loaded_models import LoadOnce, load_models
from retrieval.indexing.build import build_index
from retrieval.search.replicas.replica import ReplicaSpec
from retrieval.search.replicas.replicated_index import ReplicatedIndex
from retrieval.search.replicas.transport import LocalTransport
from retrieval.settings import BuildSettings, ReplicaSettings

ON_CPU = EngineSettings(device="cpu", memory=1 << 24)
LOAD = LoadOnce(load_models)

Open = Callable[..., tuple[ReplicatedIndex, Engine]]


@pytest.fixture(scope="session")
def segments(gallery: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten segments of four images each; tests must not change it."""
    path = tmp_path_factory.mktemp("segments") / "gallery.diffsim"
    run = BuildSettings(device="cpu", batch_size=4, workers=1, segment_rows=4)
    build_index(gallery, path, model="cells", run=run, load=LOAD)
    return path


@pytest.fixture(scope="session")
def alone(segments: Path) -> Engine:
    return Engine.open(segments, ON_CPU, LOAD)


@pytest.fixture
def opened() -> Iterator[Open]:
    """Opens an index on replicas in threads of this process; they end with the test."""
    made: list[ReplicatedIndex] = []

    def make(index: Path, replicas: int, replication: int = 1, patience: float = 5.0) -> tuple[ReplicatedIndex, Engine]:
        transport = LocalTransport(ReplicaSpec(str(index), ON_CPU, load=LOAD))
        settings = ReplicaSettings(replicas, replication, patience_seconds=patience)
        made.append(ReplicatedIndex(transport, settings))
        return made[-1], made[-1].open(index, ON_CPU, LOAD)

    yield make
    for each in made:
        each.close()
