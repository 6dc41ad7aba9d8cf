"""A server over replicas: the same routes and answers, a 503 while none can answer, and new generations."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from cli.serve_command import ServeOptions
from retrieval import build_index
from retrieval.errors import ReplicaLostError, UsageError
from retrieval.search.replicas import replicated_index
from retrieval.search.replicas.replica import ReplicaSpec
from retrieval.search.replicas.transport import LocalReplica, LocalTransport
from retrieval.serving.app import create_app
from retrieval.settings import BuildSettings, EngineSettings, ReplicaSettings, ServerSettings
from tests.serving.conftest import ORIGIN, started
from tests.support.sample_index import paint

ASKED = {"images": [{"id": 3}], "k": 6, "candidates": 12}


class Here(LocalTransport):
    """Replicas in threads of this process, in place of those on Ray; a test may refuse to open more."""

    is_full = False
    opened: list[LocalReplica]

    def __init__(self, spec: ReplicaSpec, settings: ReplicaSettings) -> None:
        super().__init__(spec)

    def open(self, number: int) -> LocalReplica:
        if self.is_full:
            raise ReplicaLostError("the cluster has no room")
        self.opened.append(super().open(number))
        return self.opened[-1]


@pytest.fixture
def copy(index: Path, tmp_path: Path) -> Path:
    shutil.copytree(index, tmp_path / "gallery.diffsim")
    return tmp_path / "gallery.diffsim"


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> type[Here]:
    transport = type("Transport", (Here,), {"opened": []})
    monkeypatch.setattr(replicated_index, "RayTransport", transport)
    return transport


@pytest.fixture
def replicated(copy: Path, here: type[Here]) -> Iterator[TestClient]:
    settings = ServerSettings(
        engine=EngineSettings(device="cpu", max_cache=0),
        replicas=ReplicaSettings(3, patience_seconds=0),
        refresh_seconds=0.05,
    )
    with TestClient(create_app({"gallery": copy}, settings), ORIGIN) as client:
        yield started(client)


def test_a_server_over_replicas_answers_as_any_other(replicated: TestClient, client: TestClient) -> None:
    for body in (ASKED, {**ASKED, "mode": "instance", "images": [{"id": 3, "box": [0.1, 0.1, 0.5, 0.5]}]}):
        found, expected = (each.post("/v1/search", json=body).json() for each in (replicated, client))
        assert [r["id"] for r in found["results"]] == [r["id"] for r in expected["results"]]
        assert [r["score"] for r in found["results"]] == pytest.approx(
            [r["score"] for r in expected["results"]], abs=1e-6
        )
    assert 'diffsim_replicas{index="gallery"} 3.0' in replicated.get("/metrics").text


def test_lost_replicas_are_a_503_until_they_are_replaced(replicated: TestClient, here: type[Here]) -> None:
    here.is_full = True
    for replica in here.opened:
        replica.close()
    answer = replicated.post("/v1/search", json=ASKED)
    assert (answer.status_code, answer.json()["kind"]) == (503, "replica_lost")
    assert answer.headers["retry-after"] == "5"
    here.is_full = False
    until = time.monotonic() + 30
    while (answer := replicated.post("/v1/search", json=ASKED)).status_code == 503:
        assert time.monotonic() < until
        time.sleep(0.05)
    assert len(answer.json()["results"]) == 6


def test_a_new_generation_is_served_without_a_failure(replicated: TestClient, copy: Path, tmp_path: Path) -> None:
    paint(tmp_path / "more", range(4))
    build_index(tmp_path / "more", copy, run=BuildSettings(device="cpu", workers=1))
    until, items = time.monotonic() + 30, 40
    while items == 40:
        assert time.monotonic() < until
        answer = replicated.post("/v1/search", json=ASKED)
        assert answer.status_code == 200, answer.text
        items = answer.json()["index"]["items"]
    assert items == 44


def test_options_become_replicas(tmp_path: Path) -> None:
    options = ServeOptions(ray="local", replicas=4, replication=2, replica_gpus=0.5, near="3GB")
    made = options.settings(EngineSettings(), {}).replicas
    assert made == ReplicaSettings(4, 2, None, gpus=0.5, near_bytes=3_000_000_000)
    assert ServeOptions().settings(EngineSettings(), {}).replicas is None
    with pytest.raises(UsageError, match="are of --ray"):
        ServeOptions(replicas=2).settings(EngineSettings(), {})
    with pytest.raises(UsageError, match="a replication of 3 needs as many replicas"):
        ServeOptions(ray="auto", replicas=2, replication=3).settings(EngineSettings(), {})
