"""A folder or file of an index becomes a link just before the system is called, and nothing outside changes.

Python announces every call that opens, makes, renames or removes a file. At the chosen one the folder is exchanged for
a link to a copy of it: after every check that could come first, and before the call itself.
"""

import os
import shutil
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from index_store.checks import opening
from index_store.errors import DiffSimError, IndexCorruptError
from index_store.files import atomic_write, replace_file, write_file
from index_store.garbage import clear_uncommitted
from index_store.generation import read_current
from index_store.layout import Layout
from index_store.tensors.cache import CacheKey, TensorCache
from index_store.tensors.projections import write_projection
from tests.index_store.small_index import grow, make_index

pytestmark = pytest.mark.skipif(os.open not in os.supports_dir_fd, reason="this system checks first and opens later")

KEY = CacheKey("style", "digest", f"{7:064x}")
EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"}
Act = Callable[[Layout], object]
ACTS: dict[str, Act] = {
    "write": lambda layout: write_file(layout.attention("style", "000002") / "q" / "zarr.json", b"new"),
    "replace": lambda layout: replace_file(layout.derived / "a" / "b" / "file", b"new"),
    "durable": lambda layout: atomic_write(layout.spare_generation(1), b"new"),
    "cache": lambda layout: TensorCache(layout, 1 << 20).put(KEY, {"q": np.ones(3)}),
    "evict": lambda layout: TensorCache(layout, 300).put(KEY, {"q": np.ones(3)}),
    "projection": lambda layout: write_projection(layout, {"w": np.ones(3)}),
    "segment": lambda layout: grow(layout, read_current(layout)),
    "clear": lambda layout: clear_uncommitted(layout, None),
}
VICTIMS = {
    "write": ["attention", "attention/style", "attention/style/000002.zarr/q"],
    "replace": ["derived"],
    "durable": ["generations"],
    "cache": ["cache", "cache/style"],
    "evict": ["cache/style/digest"],
    "projection": ["projections"],
    "segment": ["items", "attention/style", "generations"],
    "clear": ["items", "items/000002", "derived", "attention"],
}
MOST_CALLS = 10  # before which a folder is exchanged: spread over all calls of the act


class Swap:
    """Exchanges ``victim`` for a link to ``outside`` before call number ``at`` that is announced."""

    def __init__(self, victim: Path, outside: Path, at: int) -> None:
        self.victim, self.outside, self.at, self.calls = victim, outside, at, 0
        self._counting = threading.Lock()  # shards are written by threads

    def hear(self) -> None:
        """Count a call, and exchange at the chosen one."""
        with self._counting, suppress(OSError):  # of a folder that the act removes meanwhile
            self.calls += 1
            if self.calls - 1 == self.at and self.victim.is_dir():  # else the act has removed it already
                self.victim.rename(self.outside.with_name("aside"))
                self.victim.symlink_to(self.outside)


_swap: Swap | None = None  # a hook stays for ever, so one serves every test
_hearing = threading.local()


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    swap = _swap
    if event in EVENTS and swap is not None and not getattr(_hearing, "now", False):
        _hearing.now = True  # the exchange itself is announced, too
        try:
            swap.hear()
        finally:
            _hearing.now = False


@pytest.fixture(scope="module", autouse=True)
def hook() -> None:
    """Listen to the announcements of this process."""
    sys.addaudithook(_hear)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    layout = make_index(tmp_path_factory.mktemp("whole") / "x.diffsim", 1)
    TensorCache(layout, 1 << 20).put(CacheKey("style", "digest", f"{7:03x}" + "a" * 61), {"q": np.ones(30)})
    write_projection(layout, {"w": np.zeros(3)})
    write_file(layout.derived / "old.faiss", b"old")
    return layout.root


def attempt(act: Act, whole: Path, victim: str, at: int, folder: Path) -> tuple[int, Path]:
    """Do ``act`` and exchange a folder before call ``at``; return the number of calls, and the folder outside."""
    global _swap
    root, outside = folder / "x.diffsim", folder / "outside"
    shutil.copytree(whole, root)
    shutil.copytree(root / victim, outside)
    swap = _swap = Swap(root / victim, outside, at)
    try:
        with suppress(DiffSimError, OSError):
            act(Layout(root))
    finally:
        _swap = None
    return swap.calls, outside


def content(folder: Path) -> dict[str, tuple[int, bytes]]:
    paths = sorted(folder.rglob("*"))
    files = {str(path.relative_to(folder)): path for path in paths}
    return {
        name: (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"") for name, path in files.items()
    }


@pytest.mark.parametrize("act", list(ACTS))
def test_nothing_outside_changes_whenever_a_folder_becomes_a_link(tmp_path: Path, whole: Path, act: str) -> None:
    exchanged = 0
    for victim in VICTIMS[act]:
        before = content(whole / victim)
        calls, _ = attempt(ACTS[act], whole, victim, -1, tmp_path / victim / "never")
        for at in range(0, calls, 1 + calls // MOST_CALLS):
            folder = tmp_path / victim / str(at)
            _, outside = attempt(ACTS[act], whole, victim, at, folder)
            assert content(outside) == before, f"{act}: {victim} became a link before call {at}"
            exchanged += (folder / "aside").exists()
            shutil.rmtree(folder)
    assert exchanged > len(VICTIMS[act])


@pytest.mark.parametrize("write", [write_file, replace_file, atomic_write])
@pytest.mark.parametrize("is_hard", [True, False])
def test_a_link_in_the_place_of_a_file_is_replaced(
    tmp_path: Path, write: Callable[[Path, bytes], None], is_hard: bool
) -> None:
    precious, path = tmp_path / "precious", tmp_path / "x.diffsim" / "items" / "000002" / "items.parquet"
    precious.write_bytes(b"precious")
    path.parent.mkdir(parents=True)
    (path.hardlink_to if is_hard else path.symlink_to)(precious)
    write(path, b"new")
    assert (precious.read_bytes(), path.read_bytes(), path.is_symlink()) == (b"precious", b"new", False)


def test_a_system_without_descriptors_of_folders_writes_and_refuses_links_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "_STEPS", False)
    layout, outside = make_index(tmp_path / "x.diffsim", 2), tmp_path / "outside"
    assert len(read_current(layout).segments) == 2
    layout.generations.rename(outside)
    layout.generations.symlink_to(outside)
    before = content(outside)
    for write in (write_file, replace_file, atomic_write):
        with pytest.raises(IndexCorruptError, match="symbolic link"):
            write(layout.generation(1), b"new")
    assert content(outside) == before
