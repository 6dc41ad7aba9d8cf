"""Items that a moved folder left behind: their files were deleted or edited before the folder was moved."""

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping

from retrieval.indexing.sources.places import below


def left_behind(moved: Mapping[str, str], others: Collection[str], could_be_seen: Callable[[str], bool]) -> list[str]:
    """Return those of ``others`` that were in a folder which is now elsewhere, without them.

    A folder was moved if it is not there, and at least as many of its files were found again as are left behind. With
    fewer, a part of it may just have been copied, and its disk taken away.

    Args:
        moved: the new path of each file that was found again, by its old path.
        others: the paths of other items, none of which lies below the sources of this build.
        could_be_seen: says whether a file at a path would have been found.
    """
    tops = _Tops()
    found = Counter(top for old in moved if (top := tops.of(old)))
    left: dict[str, list[str]] = {}
    for uri in others if found else ():
        if (top := tops.of(uri)) in found:
            left.setdefault(top, []).append(uri)
    changed: dict[str, set[tuple[str, str]]] = {top: set() for top in left}
    for old, new in moved.items() if left else ():
        if (top := tops.of(old)) in changed:
            changed[top].add(_changed(old, new))
    return [
        uri
        for top, uris in left.items()
        if len(uris) <= found[top]
        for uri in uris
        if any(map(could_be_seen, _places(uri, changed[top])))
    ]


class _Tops:
    """Finds the highest folder above a path that is not there; asks the system about each folder once."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def of(self, path: str) -> str:
        """Return the highest missing folder above ``path``; empty: its folder is there, or may not be looked for."""
        folder = os.path.dirname(path)
        if folder not in self._known:
            above = self.of(folder) if os.path.dirname(folder) != folder else ""
            self._known[folder] = above or (folder if _is_missing(folder) else "")
        return self._known[folder]


def _is_missing(folder: str) -> bool:
    """Say whether nothing has this path; a bucket, a place in a file, or one hidden from this user is not missing."""
    if not os.path.isabs(folder):
        return False
    try:
        os.lstat(folder)
    except FileNotFoundError:
        return True
    except (OSError, ValueError):
        return False
    return False


def _changed(old: str, new: str) -> tuple[str, str]:
    """Return the folders that remain of two paths without the names that both end in."""
    while os.path.basename(old) == os.path.basename(new) and os.path.dirname(old) != old:
        old, new = os.path.dirname(old), os.path.dirname(new)
    return old, new


def _places(uri: str, changed: Collection[tuple[str, str]]) -> Iterator[str]:
    """Yield where a file would be now if its folder had moved as others did."""
    for old, new in changed:
        if uri.startswith(below(old)):
            yield os.path.join(new, os.path.relpath(uri, old))
