"""Give files the items that hold their content already: moved, swapped, copied or removed and back."""

import os
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace

from index_store.catalog import Item
from retrieval.indexing.sources.hashing import HashedFile


@dataclass(frozen=True)
class Matches:
    """The files of a build whose content the index knows."""

    moved: dict[str, Item] = field(default_factory=dict)  # by the file's path: the item's new row
    copies: tuple[HashedFile, ...] = ()  # files whose content another file holds as well
    others: tuple[HashedFile, ...] = ()  # files to compute


def match(files: Sequence[HashedFile], free: Iterable[Item], held: Collection[str]) -> Matches:
    """Give every item of ``free`` to a file with its content, and find copies among the rest.

    Args:
        files: in the order in which they are computed.
        free: items whose own file is gone or has other content, the preferred ones first.
        held: the SHA-256 of items that keep their file.
    """
    moved = _moved(files, free)
    known = {*held, *(item.sha256 for item in moved.values())}
    copies: list[HashedFile] = []
    others: list[HashedFile] = []
    for file in files:
        if file.uri in moved:
            continue
        (copies if file.sha256 in known else others).append(file)
        if file.sha256 is not None:
            known.add(file.sha256)  # a later file with the same content is a copy of this one
    return Matches(moved, tuple(copies), tuple(others))


def _moved(files: Sequence[HashedFile], free: Iterable[Item]) -> dict[str, Item]:
    """Return the new rows of items that a file takes over, by the file's path.

    Of several copies, each goes to the file that bears its name, if there is one.
    """
    named: dict[tuple[str, str], deque[Item]] = {}
    by_content: dict[str, deque[Item]] = {}
    for item in free:
        named.setdefault((item.sha256, _name(item.uri)), deque()).append(item)
        by_content.setdefault(item.sha256, deque()).append(item)
    moved: dict[str, Item] = {}
    taken: set[int] = set()

    def give(file: HashedFile, options: deque[Item]) -> None:
        while options and file.uri not in moved:
            item = options.popleft()
            if item.id not in taken:
                taken.add(item.id)
                moved[file.uri] = at_file(item, file)

    for file in files:
        give(file, named.get((file.sha256 or "", _name(file.uri)), deque()))
    for file in files:
        give(file, by_content.get(file.sha256 or "", deque()))
    return moved


def at_file(item: Item, file: HashedFile) -> Item:
    """Return the catalogue row of ``item`` at the place of ``file``, which holds the same bytes."""
    size, mtime_ns, ctime_ns = file.state
    return replace(item, uri=file.uri, size=size, mtime_ns=mtime_ns, ctime_ns=ctime_ns)


def _name(uri: str) -> str:
    return os.path.basename(uri)
