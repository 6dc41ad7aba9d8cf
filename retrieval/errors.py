"""The errors of this package; the whole tree is drawn in :mod:`index_store.errors`, which holds the root."""

from typing import ClassVar, Literal

from index_store.errors import (
    DiffSimError,
    IndexCorruptError,
    IndexIncompatibleError,
    IndexLockedError,
    IndexNotFoundError,
    IndexStoreError,
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
    "MemoryFullError",
    "ModelError",
    "NoSpaceError",
    "RejectReason",
    "RemoteStoreError",
    "UsageError",
]

RejectReason = Literal[
    "unreadable", "truncated", "empty", "not_an_image", "too_large", "permission", "vanished", "bad_name"
]
"""Why an image was not indexed. The words are stable: they are stored in ``rejects.parquet``."""


class ModelError(DiffSimError):
    """Weights are missing, incomplete or of another architecture."""

    kind = "model"


class MemoryFullError(DiffSimError):
    """The memory of the device does not hold what is computed at a time; the message names the option that helps."""

    kind = "memory_full"
    exit_code = 5


class CancelledError(DiffSimError):
    """The work was asked to stop and did, after it kept everything complete."""

    kind = "cancelled"
    exit_code = 130


class DependencyError(DiffSimError):
    """A package that this request needs is not installed; the message names the extra to install."""

    kind = "dependency"


class ImageError(DiffSimError):
    """One image can't be used. In a build it becomes a reject; as a query it ends the search."""

    kind: ClassVar[str] = "image"

    def __init__(self, reason: RejectReason, name: str, detail: str) -> None:
        """Keep ``reason`` for the catalogue; ``name`` is the file and ``detail`` a clause that says more."""
        super().__init__(f"{name}: {detail}")
        self.reason: RejectReason = reason
        self.name = name
        self.detail = detail

    def __reduce__(self) -> tuple[type["ImageError"], tuple[RejectReason, str, str]]:
        return type(self), (self.reason, self.name, self.detail)
