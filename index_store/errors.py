"""Every error that this project raises on purpose, and the exit code each one ends a command with.

    DiffSimError                    1   root: catch this to catch all of them
    ├── UsageError                  2   what was asked for makes no sense (also a ValueError)
    ├── IndexStoreError             3   there is no usable index
    │   ├── IndexNotFoundError      3   nothing there, or several to choose from
    │   ├── IndexCorruptError       3   a file of the index is damaged or missing
    │   ├── IndexUnreadableError    3   a file could not be read; its bytes may be whole
    │   └── IndexIncompatibleError  3   made by other settings, another model or a newer version
    ├── IndexLockedError            1   another process is writing to the index, or has written to it meanwhile
    ├── RemoteStoreError            1   an object store can't be reached, or refuses
    ├── NoSpaceError                5   the disk (or memory) can't hold what was asked for
    └── retrieval.errors            1   ModelError, DependencyError, ImageError, ReplicaLostError, WorkerLostError;
                                      MemoryFullError ends with 5, CancelledError with 130

A message says what happened and where. ``kind`` is stable: scripts may rely on it. The remedy is data, ``advice`` and
``facts``: the command line names its options, a server its fields.
"""

from typing import Any, ClassVar


class DiffSimError(Exception):
    """Root of every error raised on purpose; ``str(error)`` is one sentence meant for the user."""

    kind: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str = "", *, advice: str = "", **facts: Any) -> None:
        """Take one sentence; ``advice`` is a word that the caller's side knows, ``facts`` the values it needs."""
        super().__init__(message)
        self.advice = advice
        self.facts = facts


class UsageError(DiffSimError, ValueError):
    """The request itself is at fault: an unknown name, a missing folder, a contradiction of options."""

    kind = "usage"
    exit_code = 2


class IndexStoreError(DiffSimError):
    """There is no index that can be used; the leaves say why."""

    kind = "index"
    exit_code = 3


class IndexNotFoundError(IndexStoreError):
    """No index at the given place, or several where one was expected."""

    kind = "index_not_found"


class IndexCorruptError(IndexStoreError):
    """A file of the index is damaged, truncated or missing; the message names the file."""

    kind = "index_corrupt"


class IndexUnreadableError(IndexStoreError):
    """The system refused to read a file of the index: no right, too many open files, a failing disk."""

    kind = "index_unreadable"


class IndexIncompatibleError(IndexStoreError):
    """The index was made with other settings, by another model, or by a newer version of this software."""

    kind = "index_incompatible"


class IndexLockedError(DiffSimError):
    """Another process holds the writer's lock, or has committed first; readers are never affected."""

    kind = "index_locked"


class RemoteStoreError(DiffSimError):
    """The object store that holds the index can't be reached, or refuses; the message names the object."""

    kind = "remote_store"


class NoSpaceError(DiffSimError):
    """The disk is full, or an estimate says that it would be."""

    kind = "no_space"
    exit_code = 5
