"""Open a shard where it lies, in a folder or in a bucket, and say whether it has changed."""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

from retrieval.files import is_object, object_state, open_object

FileState = tuple[int, int, int]
"""Size in bytes, mtime_ns and ctime_ns; -1 where the file can't be reached, or its system tells no ctime.

An image inside a shard has the shard's times. The size of a table's row is -1: only decoding the row would tell.
"""


def state_in(status: os.stat_result) -> FileState:
    """Return the part of a file's status that shows a change. Windows keeps the time of creation as ctime."""
    return status.st_size, status.st_mtime_ns, -1 if os.name == "nt" else status.st_ctime_ns


def shard_state(path: str) -> FileState:
    """Return the state of a shard.

    Raises:
        OSError: it is not there, is no regular file, or may not be read.
        RemoteStoreError: its store can't be reached.
    """
    if is_object(path):
        state = object_state(path)
        if state is None:
            raise FileNotFoundError(errno.ENOENT, "does not exist", path)
        return state
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):  # opening a FIFO would wait
        raise OSError(errno.EINVAL, "is not a regular file", path)
    return state_in(status)


def open_shard_file(path: str, state: FileState) -> BinaryIO:
    """Open a shard of a known state for reading in parts.

    Raises:
        OSError: it can't be read, or has changed.
        RemoteStoreError: its store can't be reached.
    """
    if is_object(path):
        return open_object(path, state[0])
    file = Path(path).open("rb")  # noqa: SIM115 (the caller closes it)
    if state_in(os.fstat(file.fileno()))[:2] != state[:2]:
        file.close()
        raise OSError(errno.ESTALE, "changes meanwhile", path)
    return file
