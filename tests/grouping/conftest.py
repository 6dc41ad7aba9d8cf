"""An index of drawn pictures with copies of some of them; tests must not change it."""

from pathlib import Path

import pytest

from tests.support.copied_pictures import draw_with_copies


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures; ``one`` has copies of four kinds, ``two`` of three, and ``three`` has its bytes twice."""
    return draw_with_copies(tmp_path_factory.mktemp("copies") / "pictures")


@pytest.fixture(scope="session")
def copies_index(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pictures, indexed with the embedded model without weights."""
    from retrieval.indexing.build import build_index

    path = tmp_path_factory.mktemp("index") / "copies.diffsim"
    build_index(pictures, path, model="cells")
    return path
