"""The drawn pictures with copies of some of them, for tests of groups."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def pictures(copies_index: Path) -> Path:
    """The folder of the pictures that ``copies_index`` holds."""
    return copies_index.parent / "pictures"
