"""Measure how many bytes an index takes, in its folder or in its object store."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

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
    return {name: sum(size for _, size in _files(layout, folder)) for name, folder in folders.items()}


def bytes_of_groups(layout: Layout, name: str) -> Mapping[str, int]:
    """Return the bytes of the tensors under ``name`` by the name of their group; see :func:`bytes_on_disk`."""
    found: Counter[str] = Counter()
    for path, size in _files(layout, f"attention/{name}"):
        found[path.split("/")[2]] += size
    return found


def _files(layout: Layout, folder: str) -> Iterator[tuple[str, int]]:
    """Yield the path in the index and the bytes of every file below one of its folders."""
    mirror = find_mirror(layout)
    if mirror is not None:
        yield from ((entry.key, entry.size) for entry in mirror.store.list(folder))
        return
    for path, status in files_below(layout.root / folder):
        yield Path(path).relative_to(layout.root).as_posix(), status.st_size
