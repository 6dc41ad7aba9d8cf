"""Images and their indexes, for the tests of builds and fills."""

from pathlib import Path

import pytest

from tests.indexing.builds import BOTH, build, build_modes
from tests.support.sample_index import paint


@pytest.fixture
def photos(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Eleven images, or the module's IMAGES; RUN cuts segments of four."""
    paint(tmp_path / "photos", range(getattr(request.module, "IMAGES", 11)))
    return tmp_path / "photos"


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """A place where no index is yet."""
    return tmp_path / "photos.diffsim"


@pytest.fixture
def whole(photos: Path) -> Path:
    """An index of both modes from the start."""
    build_modes(photos, photos.parent / "whole.diffsim", BOTH)
    return photos.parent / "whole.diffsim"


@pytest.fixture
def built(tiny: None, tmp_path: Path) -> tuple[Path, Path]:
    """Ten images in two folders, and their index of three segments."""
    folder, index = tmp_path / "images", tmp_path / "images.diffsim"
    paint(folder / "a", range(6))
    paint(folder / "b", range(6, 10))
    build(folder, index)
    return folder, index
