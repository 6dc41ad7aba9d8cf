"""Folders that the processes of one run share: the first that asks for one fills it."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


def made_once(factory: pytest.TempPathFactory, name: str, fill: Callable[[Path], object]) -> Path:
    """Return the folder ``name``, which tests must not change; ``fill`` has written its content once for all."""
    base = factory.getbasetemp()
    place = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "shared"
    place.mkdir(exist_ok=True)
    with FileLock(place / f"{name}.lock"):
        if not (place / f"{name}.whole").exists():
            (place / name).mkdir()  # raises where an earlier try failed
            fill(place / name)
            (place / f"{name}.whole").touch()
    return place / name
