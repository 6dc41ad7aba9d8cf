"""Temporary folders from which worker processes send segments to an object store.

A process removes its own at its end. One that is killed can't, so the next worker on the machine does: each process
holds the lock of its folder, and the system releases that even after a kill.
"""

import os
import shutil
import stat
import tempfile
import time
from contextlib import suppress
from multiprocessing.util import Finalize  # runs at the end of children of multiprocessing, where atexit does not
from pathlib import Path

from index_store.files import ABANDONED_SECONDS
from index_store.layout import Layout
from index_store.remote.mirror import Mirror, MirrorState
from index_store.remote.object_store import configured_endpoint, parse_url

_PREFIX = "diffsim-worker-"


def scratch_mirror(url: str) -> Mirror:
    """Return a mirror in a new temporary folder, from which one process sends segments; it shows no generation.

    Raises:
        RemoteStoreError: see :func:`index_store.remote.object_store.open_store`.
    """
    remove_abandoned(Path(tempfile.gettempdir()))
    folder = scratch_folder()
    return Mirror(Layout(folder), MirrorState(parse_url(url), configured_endpoint()))


def remove_scratch(mirror: Mirror) -> None:
    """Remove the folder of a :func:`scratch_mirror`, for a process that may be killed before its end."""
    shutil.rmtree(mirror.layout.root, ignore_errors=True)


def scratch_folder() -> Path:
    """Make a temporary folder that lives as long as this process, which holds its lock."""
    from filelock import FileLock

    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    lock = FileLock(Layout(folder).lock, timeout=0, is_singleton=False)
    lock.acquire()
    Finalize(None, _remove, args=(folder, lock), exitpriority=0)  # keeps the lock, too
    return folder


def _remove(folder: Path, lock: object) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def remove_abandoned(place: Path) -> None:
    """Remove folders of workers of this user that were killed over an hour ago, best effort.

    A younger folder stays: its process may not hold the lock yet.
    """
    with suppress(OSError):
        for name in os.listdir(place):
            if name.startswith(_PREFIX):
                with suppress(OSError):
                    _remove_if_abandoned(place / name)


def _remove_if_abandoned(folder: Path) -> None:
    from filelock import FileLock, Timeout

    found = folder.lstat()
    is_own = not hasattr(os, "getuid") or found.st_uid == os.getuid()
    if not (stat.S_ISDIR(found.st_mode) and is_own and time.time() - found.st_mtime > ABANDONED_SECONDS):
        return
    with suppress(Timeout), FileLock(Layout(folder).lock, timeout=0):
        shutil.rmtree(folder, ignore_errors=True)
