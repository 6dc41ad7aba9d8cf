"""Fixtures for every test: no network but loopback, one thread, a small indexed gallery."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse every connection that leaves this machine."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise RuntimeError(f"a test tried to reach {address[0]}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away what a developer's shell could change."""
    monkeypatch.delenv("DIFFSIM_INDEX", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("NO_COLOR", "1")


@pytest.fixture(scope="session")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five drawn styles x eight motifs, 96 px."""
    from PIL import Image

    from retrieval.sample_images.pictures import MOTIFS, STYLES, draw

    folder = tmp_path_factory.mktemp("drawn") / "gallery"
    for style in STYLES[:5]:
        (folder / style).mkdir(parents=True)
        for motif in MOTIFS:
            Image.fromarray(draw(style, motif, size=96)).save(folder / style / f"{motif}.png")
    return folder


@pytest.fixture(scope="session")
def index(gallery: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The gallery, indexed with the embedded model; tests must not change it."""
    from retrieval.indexing.build import build_index

    path = tmp_path_factory.mktemp("index") / "gallery.diffsim"
    build_index(gallery, path, model="mini")
    return path


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every model is the tiny one, and nothing is flushed: no test of it is about a power failure."""
    from tests.support.stub_models import tiny_model

    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    with tiny_model():
        yield
