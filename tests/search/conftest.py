"""The drawn gallery for tests of questions: an engine on the CPU, and some of its files."""

from pathlib import Path

import pytest

from retrieval import Engine, EngineSettings


@pytest.fixture(scope="module")
def engine(index: Path) -> Engine:
    return Engine.open(index, EngineSettings(device="cpu"))


@pytest.fixture(scope="module")
def files(gallery: Path) -> list[Path]:
    return sorted(gallery.rglob("*.png"))[::9]
