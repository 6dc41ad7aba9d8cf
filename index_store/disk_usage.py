"""Measure how many bytes an index takes, in its folder or in its object store."""

from collections.abc import Collection, Iterable

from index_store.files import files_below
from index_store.layout import Layout
from index_store.remote.mirror import find_mirror


def bytes_on_disk(layout: Layout, names: Iterable[str]) -> dict[str, int]:
    """Return bytes by kind: ``catalog and vectors`` together, ``projections``, and the tensors under each of ``names``.

    For a mirror these are the bytes in the object store.

    Raises:
        RemoteStoreError: the store can't be reached.
    """
    folders = {"catalog and vectors": "items", "projections": "projections"}
    folders |= {name: f"attention/{name}" for name in names}
    mirror = find_mirror(layout)
    if mirror is not None:
        return {name: sum(entry.size for entry in mirror.store.list(folder)) for name, folder in folders.items()}
    paths = {name: layout.root / folder for name, folder in folders.items()}
    return {name: sum(status.st_size for _, status in files_below(path)) for name, path in paths.items()}


def bytes_of_tensors(layout: Layout, name: str, segments: Collection[str]) -> int:
    """Return the bytes of the tensors under ``name`` in ``segments``; see :func:`bytes_on_disk`."""
    folder, mirror = f"attention/{name}", find_mirror(layout)
    if mirror is not None:
        groups = tuple(f"{folder}/{segment}.zarr/" for segment in segments)
        return sum(entry.size for entry in mirror.store.list(folder) if entry.key.startswith(groups))
    paths = (layout.attention(name, segment) for segment in segments)
    return sum(status.st_size for path in paths for _, status in files_below(path))
