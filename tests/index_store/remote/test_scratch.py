"""Temporary folders of workers go with their process, or with the next worker if it was killed."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from index_store.files import ABANDONED_SECONDS
from index_store.remote.scratch import remove_abandoned, scratch_folder

MAKE = "import sys; from index_store.remote.scratch import scratch_folder; print(scratch_folder(), flush=True); "


def make_old(folder: Path) -> None:
    then = time.time() - ABANDONED_SECONDS - 60
    os.utime(folder, (then, then))


def start(place: Path, end: str) -> tuple["subprocess.Popen[str]", Path]:
    """Start a process that makes a folder in ``place``; return both."""
    process = subprocess.Popen(
        [sys.executable, "-c", MAKE + end],
        env={**os.environ, "TMPDIR": str(place)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_a_process_that_ends_removes_its_folder(tmp_path: Path) -> None:
    process, folder = start(tmp_path, "")
    process.communicate()
    assert (folder.parent, folder.exists(), process.returncode) == (tmp_path, False, 0)


def test_a_killed_process_leaves_its_folder_to_the_next_worker(tmp_path: Path) -> None:
    process, folder = start(tmp_path, "sys.stdin.read()")
    make_old(folder)
    remove_abandoned(tmp_path)
    assert folder.exists(), "its process lives"
    process.kill()
    process.communicate()
    os.utime(folder)
    remove_abandoned(tmp_path)
    assert folder.exists(), "a young folder may not be locked yet"
    make_old(folder)
    remove_abandoned(tmp_path)
    assert not folder.exists()


def test_only_folders_of_workers_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    own, precious, link = scratch_folder(), tmp_path / "precious", tmp_path / "diffsim-worker-link"
    precious.mkdir()
    link.symlink_to(precious)
    (tmp_path / "diffsim-worker-file").touch()
    for path in (own, precious, tmp_path / "diffsim-worker-file"):
        make_old(path)
    remove_abandoned(tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {own.name, "precious", "diffsim-worker-link", "diffsim-worker-file"}
