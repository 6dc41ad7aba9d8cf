"""Faults of a disk: an operation that fails or kills the process, and a flipped bit."""

import io
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self
from unittest import mock

import pytest


def path_of(descriptor: int) -> Path:
    """Return the path of an open file or folder, on Linux and macOS; elsewhere the test is skipped."""
    if sys.platform == "linux":
        return Path(os.readlink(f"/proc/self/fd/{descriptor}"))
    if sys.platform == "darwin":
        import fcntl

        return Path(os.fsdecode(fcntl.fcntl(descriptor, fcntl.F_GETPATH, bytes(1024)).rstrip(b"\0")))
    pytest.skip("this system does not tell the path of an open file")


def place_of(path: object, dir_fd: int | None = None) -> Path:
    """Return the path that a call of ``os`` means by a path and the descriptor of the folder that it begins in."""
    return Path(str(path)) if dir_fd is None else path_of(dir_fd) / str(path)


class Operations:
    """Count the disk operations below ``root``, and call ``act`` before the operation ``number``."""

    def __init__(
        self, root: Path, number: int, act: Callable[[], object], *, only_main: bool = False, only_durable: bool = False
    ) -> None:
        """Choose which operations count: of all threads or the main one, of all kinds or only flushes and replacements.

        With ``only_durable``, flushes in a row count once: a kill between two of them leaves the same files.
        """
        self.count = 0
        self._last = ""
        self._root, self._number, self._act = str(root), number, act
        self._only_main, self._only_durable = only_main, only_durable

    def _step(self, kind: str, path: object) -> None:
        if not str(path).startswith(self._root):
            return
        if self._only_main and threading.current_thread() is not threading.main_thread():
            return
        last, self._last = self._last, kind
        if self._only_durable and (kind not in ("fsync", "replace") or kind == last == "fsync"):
            return
        self.count += 1
        if self.count == self._number:
            self._act()

    def _watch(self, kind: str, operation: Callable[..., Any]) -> Callable[..., Any]:
        def watched(path: Any, *rest: Any, **options: Any) -> Any:
            self._step(kind, place_of(path, options.get("dir_fd", options.get("src_dir_fd"))))
            return operation(path, *rest, **options)

        return watched

    @contextmanager
    def watched(self) -> Iterator[Self]:
        """Watch every call that creates, changes or removes files and folders of an index. Flushes are skipped."""
        own_open, own_descriptor = io.open, os.open

        def watched_open(path: Any, mode: str = "r", *rest: Any, **options: Any) -> Any:
            if mode.startswith(("w", "x", "a")):
                self._step("open", path)
            return own_open(path, mode, *rest, **options)

        def watched_descriptor(path: Any, flags: int, *rest: Any, **options: Any) -> int:
            if flags & os.O_CREAT:
                self._step("open", place_of(path, options.get("dir_fd")))
            return own_descriptor(path, flags, *rest, **options)

        def watched_fsync(descriptor: int) -> None:
            self._step("fsync", path_of(descriptor))

        with ExitStack() as patches:
            patches.enter_context(mock.patch("io.open", watched_open))
            patches.enter_context(mock.patch("os.open", watched_descriptor))
            patches.enter_context(mock.patch("os.fsync", watched_fsync))
            for kind in ("mkdir", "replace", "unlink", "rmdir"):
                patches.enter_context(mock.patch(f"os.{kind}", self._watch(kind, getattr(os, kind))))
            yield self


def flip_bit(path: Path, bit: int) -> None:
    """Flip one bit of a file."""
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)
