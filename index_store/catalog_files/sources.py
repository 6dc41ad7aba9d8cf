"""Sources: the folders that images lie below. Paths are kept relative to them, so that photos and index can travel."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

FEW = 64  # rows whose paths are joined without pyarrow.compute, which loads for 60 ms
NO_SOURCE = -1  # the source of a row whose path is absolute


@dataclass(frozen=True)
class Source:
    """One folder of images; its ``id`` is never used twice in an index."""

    id: int
    location: str  # absolute, when the index was last written
    beside: str = ""  # the same, relative to the index's folder, with "/"; empty: unknown
    whole: bool = True  # the folder itself was indexed; False: only some files in it
    was: str = ""  # its location in format 1 or 2, whose rows hold absolute paths; empty: it is of format 3
    dropped: bool = False  # it was taken out of the index; its id stays taken, because removed rows still name it

    @classmethod
    def from_json(cls, value: str | Mapping[str, Any], number: int) -> "Source":
        """Read the JSON value of a source; formats 1 and 2 hold only a path, which gets the id ``number``."""
        return cls(number, value, was=value) if isinstance(value, str) else cls(**value)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    def found(self, root: Path) -> str:
        """Return the folder as it lies today: at ``location``, else at the same place beside the index at ``root``."""
        if self.beside and not os.path.isdir(self.location):
            moved = os.path.normpath(os.path.join(os.path.abspath(root), *self.beside.split("/")))
            if os.path.isdir(moved):
                return moved
        return self.location

    def noted(self, root: Path | None) -> "Source":
        """Return the source with its place of today, if it is there; ``root`` is None for an index in a store."""
        if root is None:
            return replace(self, beside="")
        location = self.found(root)
        return replace(self, location=location, beside=_beside(location, root)) if os.path.isdir(location) else self


def _beside(location: str, root: Path) -> str:
    try:
        return os.path.relpath(location, os.path.abspath(root)).replace(os.sep, "/")
    except ValueError:  # another drive of Windows
        return ""


class Sources:
    """The sources of an index, found on this machine. Turns kept paths into absolute ones and back."""

    def __init__(self, sources: Iterable[Source] = (), root: Path | None = None) -> None:
        """Look for each source, in its old place or beside the index at ``root``."""
        self.all = tuple(sources)
        self.folders = {s.id: s.location if root is None else s.found(root) for s in self.all}
        kept = {source.id: self.folders[source.id] for source in self.all if not source.dropped}
        self.places = tuple(kept.values())
        self._ids = {folder.rstrip(os.sep): number for number, folder in reversed(kept.items())}
        self._known: dict[str, tuple[int, int]] = {}  # a folder's source, and the length of the source's prefix

    def split(self, uri: str) -> tuple[int, str]:
        """Return the innermost source that an absolute path lies below, and the path relative to it, with "/"."""
        number, length = self._of_folder(os.path.dirname(uri))
        return number, uri if number == NO_SOURCE else uri[length:].replace(os.sep, "/")

    def _of_folder(self, folder: str) -> tuple[int, int]:
        if folder not in self._known:
            key, parent = folder.rstrip(os.sep), os.path.dirname(folder)
            if key in self._ids:
                self._known[folder] = self._ids[key], len(key) + 1
            else:
                self._known[folder] = (NO_SOURCE, 0) if parent == folder else self._of_folder(parent)
        return self._known[folder]

    def containing(self, folder: str) -> int:
        """Return the id of the innermost source that ``folder`` is or lies below; NO_SOURCE if there is none."""
        return self._of_folder(folder)[0]

    def absolute(self, table: pa.Table) -> pa.ChunkedArray:
        """Return the absolute paths of rows with the columns ``source`` and ``path``."""
        if len(table) <= FEW:
            rows = zip(table["source"].to_pylist(), table["path"].to_pylist(), strict=True)
            return pa.chunked_array([pa.array([self._absolute(*row) for row in rows], pa.string())])
        import pyarrow.compute as pc

        paths = table["path"]
        if os.sep != "/":
            kept = pc.equal(table["source"], NO_SOURCE)
            paths = pc.if_else(kept, paths, pc.replace_substring(paths, "/", os.sep))
        ids, positions = np.unique(table["source"].to_numpy(), return_inverse=True)
        prefixes = pa.array([_prefix(self.folders.get(number)) for number in ids.tolist()], pa.string())
        return pc.binary_join_element_wise(prefixes.take(pa.array(positions)), paths, "")

    def _absolute(self, number: int, path: str) -> str:
        kept = path if number == NO_SOURCE else path.replace("/", os.sep)
        return _prefix(self.folders.get(number)) + kept

    def adopted(self, table: pa.Table) -> pa.Table:
        """Give rows of format 1 and 2, whose paths are absolute, the source that they lay below."""
        former = [source for source in self.all if source.was]
        sources: NDArray[np.int32] = table["source"].to_numpy().copy()
        loose = np.flatnonzero(sources == NO_SOURCE)
        if not former or not len(loose):
            return table
        import pyarrow.compute as pc

        paths = table["path"].combine_chunks().take(pa.array(loose))
        # A single image that was named as a source is no folder.
        is_image = pc.is_in(pa.array([source.was for source in former]), value_set=paths).to_pylist()
        shortened = table["path"].to_pylist()
        folders = [source for source, image in zip(former, is_image, strict=True) if not image]
        for source in sorted(folders, key=lambda source: len(source.was)):  # the innermost one comes last and stays
            prefix = _prefix(source.was)
            for row in loose[pc.starts_with(paths, prefix).to_numpy(zero_copy_only=False)].tolist():
                sources[row] = source.id
        lengths = {source.id: len(_prefix(source.was)) for source in folders}
        for row in loose[sources[loose] != NO_SOURCE].tolist():
            shortened[row] = shortened[row][lengths[int(sources[row])] :].replace(os.sep, "/")
        for name, values in (("source", pa.array(sources)), ("path", pa.array(shortened, pa.string()))):
            table = table.set_column(table.schema.get_field_index(name), name, values)
        return table


def _prefix(folder: str | None) -> str:
    return "" if folder is None else os.path.join(folder, "")


def merged(*groups: Sequence[Source]) -> tuple[Source, ...]:
    """Return all sources of ``groups``, once for each id; the first group that has one counts."""
    found: dict[int, Source] = {}
    for source in (source for group in groups for source in group):
        found.setdefault(source.id, source)
    return tuple(found[number] for number in sorted(found))
