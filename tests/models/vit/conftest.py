"""Tiny models of every known family, each made once a session."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.hub.vision_models import write_model

FolderOf = Callable[[str], Path]


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> FolderOf:
    """Return the folder of the tiny model of a ``model_type``."""
    made: dict[str, Path] = {}
    root = tmp_path_factory.mktemp("models")

    def get(name: str) -> Path:
        if name not in made:
            made[name] = write_model(root / name, name)
        return made[name]

    return get
