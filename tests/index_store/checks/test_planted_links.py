"""A link that is put in the place of any file or folder of an index, after the index was checked, leads nowhere."""

import shutil
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from index_store import garbage, generation, lock
from index_store.calibration.record import read_sample
from index_store.checks.links import FOLDERS
from index_store.checks.opening import exists_inside, list_inside, open_inside, remove_file, remove_tree, root_of
from index_store.disk_usage import bytes_on_disk
from index_store.errors import DiffSimError, IndexCorruptError
from index_store.files import files_below, read_regular
from index_store.generation import generation_files, is_complete, read_current
from index_store.layout import Layout
from index_store.reader import IndexReader
from index_store.remote.mirror import find_mirror
from index_store.repair import damage
from index_store.repair.rebuilding import rebuild
from index_store.tensors.cache import CacheKey, TensorCache, cache_size
from index_store.vectors.ivf import read_record
from tests.fuzz.sandbox import Watch

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="inotify sees who opens a file")

KEY = CacheKey("style", "ab" * 8, f"{7:064x}")
PLACES = [
    "CURRENT",
    "REMOTE",
    "generations",
    "generations/000003.json",
    "generations/000003.spare",
    "items",
    *(
        f"items/000002{rest}"
        for rest in (
            *("", "/items.parquet", "/rejects.parquet", "/shards.json", "/segment.json", "/vectors", "/vectors/e.npy"),
            *("/spare", "/spare/items.parquet", "/spare/rejects.parquet", "/spare/shards.json", "/spare/segment.json"),
        )
    ),
    "attention",
    "attention/style",
    *(f"attention/style/000002.zarr{rest}" for rest in ("", "/zarr.json", "/q", "/q/zarr.json", "/q/c", "/q/c/0")),
    "attention/style/000002.zarr/q/c/0/0/0/0/0",
    "cache",
    "cache/style",
    f"cache/style/{KEY.digest}",
    f"cache/style/{KEY.digest}/{KEY.sha256[:3]}",
    "derived",
    "derived/e.json",
    "derived/style.scores",
    "projections",
    "projections/0123456789abcdef.npz",
]


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """No check finds a link: each is put there right after it."""
    for module in (generation, lock, garbage, damage):
        monkeypatch.setattr(module, "refuse_links", lambda root: None)


def plant(layout: Layout, place: str, outside: Path) -> None:
    """Move a file or folder away, to be followed with success, and put a link in its place."""
    path = layout.root / place
    if place == "REMOTE":
        path.write_bytes(b"{}")
    shutil.move(path, outside / path.name)
    path.symlink_to(outside / path.name)


def use(layout: Layout) -> None:
    """Do everything that reads, lists or clears an index, whatever goes wrong on the way."""
    cache = TensorCache(layout, 1 << 20)
    read = (
        lambda: IndexReader(layout.root).rejects(),
        lambda: IndexReader(layout.root).vectors("e"),
        lambda: IndexReader(layout.root).attention("style", range(6)),
        lambda: list(damage.find_damage(layout.root)),
        lambda: [is_complete(layout, path) for path in generation_files(layout)],
        lambda: bytes_on_disk(layout, ("style",)),
        lambda: list(files_below(layout.cache)),
        lambda: cache_size(layout),
        lambda: cache.get(KEY),
        lambda: cache.images(KEY.mode, KEY.digest),
        lambda: cache.drop(KEY),
        lambda: read_record(layout, "e"),
        lambda: read_sample(layout, "style", "x"),
        lambda: find_mirror(layout),
        lambda: rebuild(layout, None, None),
        lambda: garbage.prepare_to_write(layout, read_current(layout)),
        lambda: garbage.clear_uncommitted(layout, None),
    )
    for each in read:
        with suppress(DiffSimError, OSError):
            each()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("place", PLACES)
def test_nothing_outside_is_opened_listed_or_removed(layout: Layout, tmp_path: Path, place: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    TensorCache(layout, 1 << 20).put(KEY, {"q": np.ones(3, np.float16)})
    for name, file in (("derived", "e.json"), ("derived", "style.scores"), ("projections", "0123456789abcdef.npz")):
        (layout.root / name).mkdir(exist_ok=True)
        (layout.root / name / file).write_bytes(b"{}")
    plant(layout, place, outside)
    before = {path: path.read_bytes() for path in outside.rglob("*") if path.is_file()}
    watch = Watch(outside)
    use(layout)
    assert not watch.seen()
    assert {path: path.read_bytes() for path in outside.rglob("*") if path.is_file()} == before


def test_the_watch_sees_what_follows_a_link(layout: Layout, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    plant(layout, "items/000002/items.parquet", tmp_path / "outside")
    watch = Watch(tmp_path / "outside")
    (layout.root / "items/000002/items.parquet").read_bytes()
    assert watch.seen()


@pytest.mark.parametrize("folder", FOLDERS)
def test_each_step_refuses_a_link_and_the_indexs_own_folder_may_be_one(tmp_path: Path, folder: str) -> None:
    root, link = tmp_path / "real", tmp_path / "cache"  # the name of a folder inside indexes
    (root / folder / "a").mkdir(parents=True)
    (root / folder / "a" / "file").write_bytes(b"1")
    link.symlink_to(root)
    assert root_of(str(link / folder / "a" / "file")) == str(link)
    assert read_regular(link / folder / "a" / "file") == b"1"
    assert list_inside(link / folder) == ["a"]
    (root / folder / "b").symlink_to(root / folder / "a")
    for refused in (
        lambda: read_regular(link / folder / "b" / "file"),
        lambda: list_inside(link / folder / "b"),
        lambda: exists_inside(link / folder / "b" / "file"),
        lambda: remove_file(link / folder / "b" / "file"),
        lambda: remove_tree(link / folder / "b" / "file"),
        lambda: open_inside(link / folder / "b" / "file", 0),
    ):
        with pytest.raises(IndexCorruptError, match="symbolic link inside an index"):
            refused()
    remove_tree(link / folder / "b")
    assert list_inside(link / folder) == ["a"]
    assert (root / folder / "a" / "file").read_bytes() == b"1"
