"""Write files in threads, flushed as they are written, so that whoever makes their bytes goes on meanwhile."""

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from index_store.files import writing

THREADS = 4  # one waits for the disk while another puts a shard together; two reached five sixths of a fast disk
WAITING = 2 * THREADS  # files at a time, written or about to be: their rows are in memory

# macOS and Windows have no call that leaves times of change out.
_flush: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)


class BackgroundWriter:
    """Files that are being written; an error is raised by whatever is called next."""

    def __init__(self) -> None:
        """Begin with none; threads are started by the first."""
        self._pool: ThreadPoolExecutor | None = None
        self._begun: deque[Future[None]] = deque()

    def write(self, path: Path, make: Callable[[], memoryview]) -> None:
        """Begin to write what ``make`` returns to ``path``; waits while many files are being written already.

        Raises:
            DiffSimError: a file that was begun before could not be written; see :func:`index_store.files.writing`.
        """
        self._settle(WAITING - 1)
        if self._pool is None:
            self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="write")
        self._begun.append(self._pool.submit(_write, path, make))

    def finish(self) -> None:
        """Wait until every file is written and flushed; raises what :meth:`write` does."""
        self._settle(0)
        self.drop()

    def drop(self) -> None:
        """Begin no further file, and wait for those that are being written."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None
        self._begun.clear()

    def _settle(self, most: int) -> None:
        while len(self._begun) > most:
            self._begun[0].result()
            self._begun.popleft()  # only now: what failed fails again


def _write(path: Path, make: Callable[[], memoryview]) -> None:
    """Flush at once: what waits in the system's memory would all be flushed while a commit waits."""
    data = make()
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.write(data)
            file.flush()
            _flush(file.fileno())
