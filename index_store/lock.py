"""One writer at a time. Readers take no lock: a generation that they opened never changes."""

from collections.abc import Iterator
from contextlib import contextmanager

from index_store.checks.links import refuse_links
from index_store.errors import IndexLockedError
from index_store.files import writing
from index_store.layout import Layout


@contextmanager
def writer_lock(layout: Layout) -> Iterator[None]:
    """Hold the writer's lock; the system releases it when the process ends, even by a kill.

    Raises:
        IndexLockedError: at once, if another process holds it.
        IndexCorruptError: a file or folder of the index is a symbolic link.
    """
    from filelock import FileLock, Timeout

    with writing(layout.root):
        layout.root.mkdir(parents=True, exist_ok=True)
    refuse_links(layout.root)
    lock = FileLock(layout.lock, timeout=0)
    try:
        with writing(layout.lock):
            lock.acquire()
    except Timeout as error:
        raise IndexLockedError(
            f"another process is writing to {layout.root}; wait for it to end, or stop it (searches go on meanwhile)"
        ) from error
    try:
        yield
    finally:
        lock.release()
