"""An index's own folder may be a link, which its user made: only links below it are refused."""

import os
from pathlib import Path

import pytest

from index_store.files import ABANDONED_SECONDS
from index_store.reader import IndexReader
from retrieval.indexing.upkeep.compacting import compact
from retrieval.indexing.upkeep.repairing import verify
from tests.indexing.builds import build, stop_at
from tests.support.sample_index import paint

pytestmark = pytest.mark.usefixtures("tiny")


@pytest.fixture(params=["x.diffsim", "items/x.diffsim", "generations", "derived/photos"])
def link(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A link to an empty folder; its name and those above may be names of an index's own folders."""
    path: Path = tmp_path / "links" / request.param
    path.parent.mkdir(parents=True)
    (tmp_path / "real" / "y.diffsim").mkdir(parents=True)
    path.symlink_to(tmp_path / "real" / "y.diffsim")
    return path


def test_it_is_built_changed_compacted_and_cleaned(link: Path, tmp_path: Path) -> None:
    paint(tmp_path / "photos", range(6))
    assert build(tmp_path / "photos", link).added == 6
    (tmp_path / "photos" / "003.png").unlink()
    left = link / ".tmp-0123456789abcdef"
    left.touch()
    os.utime(left, (0, left.stat().st_mtime - 2 * ABANDONED_SECONDS))
    assert build(tmp_path / "photos", link).removed == 1
    assert not left.exists()
    compact(link)
    assert verify(link) == []
    assert len(IndexReader(link)) == len(IndexReader(link.resolve())) == 5
    assert link.is_symlink()


def test_a_first_build_that_is_stopped_leaves_the_link(link: Path, tmp_path: Path) -> None:
    paint(tmp_path / "photos", range(2))
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "photos", link, on_progress=stop_at("planned", 1))
    assert link.is_symlink()
    assert list(link.iterdir()) == []
