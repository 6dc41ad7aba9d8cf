"""Write and flush files in background threads, while the caller computes the next ones."""

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from index_store.files import write_file

THREADS = 4  # one waits for the disk while another assembles a shard; two reached five sixths of a fast disk's speed
WAITING = 2 * THREADS  # files at a time, being written or waiting: their rows are in memory


class BackgroundWriter:
    """Writes files in threads; the next call of any method raises an error of an earlier file."""

    def __init__(self) -> None:
        """Start no thread yet: the first file does."""
        self._pool: ThreadPoolExecutor | None = None
        self._begun: deque[Future[None]] = deque()

    def write(self, path: Path, make: Callable[[], memoryview]) -> None:
        """Begin to write the bytes that ``make`` returns to ``path``; wait first if WAITING files are under way.

        Raises:
            DiffSimError: an earlier file could not be written; see :func:`index_store.files.writing`.
        """
        self._settle(WAITING - 1)
        if self._pool is None:
            self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="write")
        self._begun.append(self._pool.submit(_write, path, make))

    def finish(self) -> None:
        """Wait until every file is written and flushed; raises the same errors as :meth:`write`."""
        self._settle(0)
        self.drop()

    def drop(self) -> None:
        """Begin no further file, and wait for the files that are being written."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None
        self._begun.clear()

    def _settle(self, most: int) -> None:
        while len(self._begun) > most:
            self._begun[0].result()
            self._begun.popleft()  # only now, so that a failed file fails the next call too


def _write(path: Path, make: Callable[[], memoryview]) -> None:
    """Write and flush at once: otherwise the commit would wait while all files are flushed together."""
    write_file(path, make(), _flush)


def _flush(descriptor: int) -> None:
    """Bring a file's bytes to the disk; macOS and Windows have no call that leaves modification times out."""
    getattr(os, "fdatasync", os.fsync)(descriptor)
