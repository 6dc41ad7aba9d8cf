"""After going back to an older state, ids are given again: nothing that was kept for them may be taken for others."""

import shutil
from pathlib import Path

import pytest

from index_store.layout import Layout
from retrieval.indexing.upkeep.repairing import verify
from retrieval.search.engine import Engine
from tests.indexing.builds import LAZY, assert_same_scores, build, fill
from tests.support.sample_index import paint

pytestmark = pytest.mark.usefixtures("tiny")
IMAGES = 5


def scores(index: Path, query: Path) -> dict[str, float | None]:
    return {r.path: r.score for r in Engine.open(index).search(query, "style", exhaustive=True, k=100)}


def lose_all_but_the_cache(index: Path, before: Path) -> None:
    """Take away every trace of the generations after those of the copy ``before``, the cache of tensors apart."""
    for path in sorted(index.rglob("*"), reverse=True):
        place = path.relative_to(index)
        if place.parts[0] != "cache" and path.is_file() and not (before / place).exists():
            path.unlink()
    Layout(index).current.write_bytes((before / "CURRENT").read_bytes())


@pytest.mark.parametrize("how", ["an older generation", "an older copy over the index", "only the cache stays"])
@pytest.mark.parametrize("is_filled", [False, pytest.param(True, marks=pytest.mark.thorough)])
def test_pictures_that_get_the_ids_of_others_keep_their_own_scores(
    how: str, is_filled: bool, photos: Path, index: Path, tmp_path: Path
) -> None:
    build(photos, index, LAZY)
    shutil.copytree(index, tmp_path / "saved")
    paint(photos, range(10, 14))
    build(photos, index)
    scores(index, photos / "000.png")  # keeps what it computes
    if how == "an older generation":
        Layout(index).current.write_bytes((tmp_path / "saved" / "CURRENT").read_bytes())
    elif how == "only the cache stays":  # the newest generation, its copy and its segment vanish, so ids come again
        lose_all_but_the_cache(index, tmp_path / "saved")
    else:
        shutil.copytree(tmp_path / "saved", index, dirs_exist_ok=True)
    for number in range(10, 14):
        (photos / f"{number:03d}.png").unlink()
    paint(photos, range(20, 24))
    build(photos, index)
    if is_filled:
        fill(index)
    build(photos, tmp_path / "fresh.diffsim")
    for query in (photos / "000.png", photos / "020.png"):
        assert_same_scores(scores(index, query), scores(tmp_path / "fresh.diffsim", query))
    assert verify(index) == []
