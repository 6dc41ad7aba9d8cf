"""Atomic writes, temporary files, and errors of a disk that is full."""

import errno
import os
import resource
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from index_store import files
from index_store.catalog_files.rows import ITEM_SCHEMA, write_rows
from index_store.errors import DiffSimError, NoSpaceError
from index_store.files import ABANDONED_SECONDS, atomic_write, is_abandoned, is_temporary, replace_file
from index_store.vectors.storage import write_vectors
from tests.index_store.small_index import item

FULL_DEVICE = Path("/dev/full")
WRITERS = pytest.mark.parametrize("write", [atomic_write, replace_file])


@WRITERS
def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path: Path, write: Callable[[Path, bytes], None]) -> None:
    path = tmp_path / ("n" * 255)  # the longest name that there is
    for content in (b"one", b"two" * 1000, b""):
        write(path, content)
        assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


@WRITERS
def test_a_planted_symbolic_link_is_not_written_through(
    tmp_path: Path, write: Callable[[Path, bytes], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may write to the folder must not be able to point our write at another file of ours."""
    victim, path = tmp_path / "victim", tmp_path / "CURRENT"
    victim.write_bytes(b"precious")
    path.write_bytes(b"old")
    for name in (".CURRENT.tmp", f"{files._TEMPORARY}guessed"):
        (tmp_path / name).symlink_to(victim)
    monkeypatch.setattr(files.secrets, "token_hex", lambda count: "guessed")
    with pytest.raises(FileExistsError):
        write(path, b"new")
    assert (victim.read_bytes(), path.read_bytes()) == (b"precious", b"old")
    assert (tmp_path / f"{files._TEMPORARY}guessed").is_symlink(), "a file that is not ours is not removed"
    monkeypatch.undo()
    write(path, b"new")
    assert (victim.read_bytes(), path.read_bytes()) == (b"precious", b"new")


def test_a_link_at_the_name_itself_is_replaced_not_followed(tmp_path: Path) -> None:
    victim, path = tmp_path / "victim", tmp_path / "CURRENT"
    victim.write_bytes(b"precious")
    path.symlink_to(victim)
    atomic_write(path, b"new")
    assert (victim.read_bytes(), path.read_bytes(), path.is_symlink()) == (b"precious", b"new", False)


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, NoSpaceError),
        (errno.EDQUOT, NoSpaceError),
        (errno.EROFS, DiffSimError),
        (errno.EACCES, DiffSimError),
        (errno.EIO, OSError),
    ],
)
@pytest.mark.parametrize("operation", ["fsync", "replace"])
def test_a_failed_replacement_leaves_the_old_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str, number: int, kind: type[Exception]
) -> None:
    path = tmp_path / "CURRENT"
    path.write_bytes(b"old")

    def fail(*arguments: object, **keywords: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, operation, fail)
    with pytest.raises(kind):
        atomic_write(path, b"new")
    assert [(found.name, found.read_bytes()) for found in tmp_path.iterdir()] == [("CURRENT", b"old")]


def test_only_old_temporary_files_are_abandoned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files.time, "time", lambda: 1e9)
    name = f"{files._TEMPORARY}0123"
    assert is_temporary(name)
    assert is_abandoned(name, 1e9 - ABANDONED_SECONDS - 1)
    assert not is_abandoned(name, 1e9 - ABANDONED_SECONDS + 1)
    assert not is_abandoned(name, 1e9 + 1000), "a clock that went backwards"
    assert not is_abandoned("CURRENT", 0)


@pytest.mark.skipif(not FULL_DEVICE.exists(), reason="needs /dev/full")
@pytest.mark.parametrize("kind", ["parquet", "npy"])
def test_every_writer_says_that_the_disk_is_full(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / f"file.{kind}"
    monkeypatch.setattr(files, "new_file", lambda *arguments, **keywords: FULL_DEVICE.open("wb"))
    with pytest.raises(NoSpaceError, match="disk is full") as caught:  # noqa: PT012  (one of two)
        if kind == "parquet":
            write_rows(path, [item(number) for number in range(1000)], ITEM_SCHEMA)
        else:
            write_vectors(path, [np.zeros((1000, 100), np.float32)])
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("kind", ["npy", "atomic"])
def test_a_write_that_stops_halfway_says_why(tmp_path: Path, kind: str) -> None:
    """A limit on file sizes stands in for a disk that fills up: the first bytes fit, the rest does not."""
    own = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, own[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:  # noqa: PT012  (one of two)
            if kind == "npy":
                write_vectors(tmp_path / "e.npy", [np.zeros((1000, 100), np.float32)])
            else:
                atomic_write(tmp_path / "CURRENT", bytes(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, own)
    assert caught.value.errno == errno.EFBIG
    assert kind == "npy" or list(tmp_path.iterdir()) == []
