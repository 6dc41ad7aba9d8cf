"""A synthetic tree in the layout of each benchmark."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import bench_trees as trees

TREES: dict[str, tuple[Callable[[Path], Any], int]] = {
    "sref": (trees.styles, 2000),
    "instantstyle": (trees.styles, 2000),
    "groups": (trees.styles, 2000),
    "ip": (trees.characters, 12 * 5),
    "cute": (trees.cute, 18 * 10),
    "tid2013": (trees.tid2013, 600),
    "nights": (trees.nights, 60),
    "dreambench++": (trees.dreambench, 2 * (5 + 3 * 4)),
    "votes": (trees.votes, 10),
    "levels": (trees.levels, 2 * (6 + 3)),
}


@pytest.fixture(scope="session")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A tree a layout, made when it is first asked for."""
    made: dict[Any, Path] = {}

    def grow(name: str) -> Path:
        plant = TREES[name][0]
        if plant not in made:
            made[plant] = tmp_path_factory.mktemp("tree")
            plant(made[plant])
        return made[plant]

    return grow
