"""Fixtures of the store's tests: a small index."""

import shutil
from pathlib import Path

import pytest

from index_store.layout import Layout
from tests.index_store.small_index import make_index


@pytest.fixture(scope="session")
def _two_segments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The index that tests get a copy of: copying takes a fifth of the time of writing."""
    return make_index(tmp_path_factory.mktemp("small") / "x.diffsim", segments=2).root


@pytest.fixture
def layout(_two_segments: Path, tmp_path: Path) -> Layout:
    """An index of two segments of three items, three generations."""
    return Layout(Path(shutil.copytree(_two_segments, tmp_path / "x.diffsim")))
