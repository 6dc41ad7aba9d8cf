"""The errors of this package. :mod:`index_store.errors` holds the root and draws the whole tree."""

from typing import ClassVar, Literal

from index_store.errors import (
    DiffSimError,
    IndexCorruptError,
    IndexIncompatibleError,
    IndexLockedError,
    IndexNotFoundError,
    IndexStoreError,
    IndexUnreadableError,
    NoSpaceError,
    RemoteStoreError,
    UsageError,
)

__all__ = [
    "CancelledError",
    "DependencyError",
    "DiffSimError",
    "ImageError",
    "IndexCorruptError",
    "IndexIncompatibleError",
    "IndexLockedError",
    "IndexNotFoundError",
    "IndexStoreError",
    "IndexUnreadableError",
    "MemoryFullError",
    "ModelError",
    "NoSpaceError",
    "RejectReason",
    "RemoteStoreError",
    "ReplicaLostError",
    "UsageError",
    "WorkerLostError",
]

RejectReason = Literal[
    "unreadable", "truncated", "empty", "not_an_image", "unsupported", "too_large", "permission", "vanished", "bad_name"
]
"""Why an image was not indexed. These words never change: indexes store them in ``rejects.parquet``."""


class ModelError(DiffSimError):
    """Weights are missing, incomplete, or those of another architecture."""

    kind = "model"


class MemoryFullError(DiffSimError):
    """Memory ran out, of the device or of the machine; the message says during which work."""

    kind = "memory_full"
    exit_code = 5


class WorkerLostError(DiffSimError):
    """A worker ended in the middle of its work: it was killed, ran out of memory, or its machine went away."""

    kind = "worker_lost"


class ReplicaLostError(DiffSimError):
    """No living replica holds some segments: those that did were killed, or their machines went away."""

    kind = "replica_lost"


class CancelledError(DiffSimError):
    """The work stopped because it was asked to. Everything complete is kept."""

    kind = "cancelled"
    exit_code = 130


class DependencyError(DiffSimError):
    """A Python package that the request needs is not installed; the message names the extra to install."""

    kind = "dependency"


class ImageError(DiffSimError):
    """An image can't be used. A build notes it as a reject; a search with such a query fails."""

    kind: ClassVar[str] = "image"

    def __init__(self, reason: RejectReason, name: str, detail: str) -> None:
        """Take the reason for the catalogue, the file's name, and a clause of detail for people."""
        super().__init__(f"{name}: {detail}")
        self.reason: RejectReason = reason
        self.name = name
        self.detail = detail

    def __reduce__(self) -> tuple[type["ImageError"], tuple[RejectReason, str, str]]:
        return type(self), (self.reason, self.name, self.detail)
