"""The drawn gallery behind an application in this process."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from retrieval import Engine, EngineSettings
from retrieval.serving.app import create_app
from retrieval.settings import ServerLimits, ServerSettings

ORIGIN = "http://localhost"


def started(client: TestClient) -> TestClient:
    """Return the client once the models are loaded."""
    until = time.monotonic() + 60
    while client.get("/readyz").status_code != 200:
        assert time.monotonic() < until, client.get("/readyz").text
        time.sleep(0.01)
    return client


@pytest.fixture(scope="package")
def limits() -> ServerLimits:
    return ServerLimits(k=50, candidates=60, images=4, queries=3, explained=2, page=20, pixels=2**20, image_bytes=2**20)


@pytest.fixture(scope="package")
def client(index: Path, limits: ServerLimits) -> Iterator[TestClient]:
    settings = ServerSettings(limits=limits, refresh_seconds=60)
    with TestClient(create_app({"gallery": index}, settings), ORIGIN) as made:
        yield started(made)


@pytest.fixture(scope="package")
def engine(index: Path) -> Engine:
    return Engine.open(index, EngineSettings(device="cpu"))


@pytest.fixture(scope="package")
def files(gallery: Path) -> list[Path]:
    return sorted(gallery.rglob("*.png"))


@pytest.fixture(scope="package")
def grouped(copies_index: Path) -> Iterator[TestClient]:
    """A server of the copies, which lists at most 20 items' groups."""
    settings = ServerSettings(limits=ServerLimits(grouped=20, neighbours=30), refresh_seconds=60)
    with TestClient(create_app({"copies": copies_index}, settings), ORIGIN) as made:
        yield started(made)
