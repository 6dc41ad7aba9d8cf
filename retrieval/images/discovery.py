"""Find image files by their names, in folders and in shards; :mod:`retrieval.images.decoding` looks at their bytes."""

import heapq
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import overload

from retrieval.errors import UsageError
from retrieval.files import is_object, list_objects, object_name, object_state
from retrieval.images.file_states import FileState, state_of
from retrieval.images.shards.naming import has_shard_name, is_packed, is_table, order_of
from retrieval.images.shards.opening import member_paths, open_shard

IMAGE_SUFFIXES: frozenset[str] = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".avif", ".gif"),
        *(".tif", ".tiff", ".bmp", ".dib", ".mpo", ".heic", ".heif", ".hif"),
    }
)
"""The endings (lower case) of image files."""

_ENDINGS = tuple(IMAGE_SUFFIXES)
_INDEX_SUFFIX = ".diffsim"


class Paths(Sequence[Path]):
    """A sequence that makes each Path on demand, because a million Path objects would take a gigabyte."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    def __len__(self) -> int:
        return len(self._names)

    @overload
    def __getitem__(self, index: int) -> Path: ...

    @overload
    def __getitem__(self, index: slice) -> "Paths": ...

    def __getitem__(self, index: int | slice) -> "Path | Paths":
        return Paths(self._names[index]) if isinstance(index, slice) else Path(self._names[index])


@dataclass(frozen=True, slots=True)
class Listing:
    """The result of a walk over folders.

    ``names`` are absolute paths with symlinks kept, sorted by the bytes of their parts. ``passed_over`` counts regular
    files that are hidden or have no image ending. ``unreadable`` holds the folders and shards that could not be listed
    in full, in the same order as the files. ``endings`` counts the files that were passed over and are not hidden by
    their ending (lower case, with its dot; empty for none), the most frequent first.
    """

    names: tuple[str, ...]
    passed_over: int
    unreadable: tuple[Path, ...] = ()
    endings: Mapping[str, int] = field(default_factory=dict, hash=False)
    states: Mapping[str, FileState] = field(default_factory=dict, hash=False)  # of objects in a bucket, by name

    def state_of(self, name: str) -> FileState:
        """Return the state of a file when it was listed, if the list told, or now."""
        return self.states.get(name) or state_of(name)

    @property
    def files(self) -> "Paths":
        """The paths of the images."""
        return Paths(self.names)


def find_images(sources: Sequence[Path]) -> Listing:
    """List the images in ``sources``, files, shards and folders (walked recursively), by their names alone.

    A shard is a tar, or a table (Parquet, Arrow) with a column of images; its members have names like paths
    (:mod:`retrieval.images.shards.naming`). A damaged shard, or one that holds refused members, is listed beside its
    members: reading it gives the error. A table of names of files counts only as a source of its own.

    The result does not depend on the order of the sources or of the file system. Hidden files and folders (the name
    starts with a dot) and indexes (``*.diffsim``) are skipped; a hidden source is walked. Symlinks are followed. A real
    folder is walked once, by a path without symlinks if one exists. Broken symlinks with an image ending are listed.
    An empty result is no error.

    Raises:
        UsageError: a source that does not exist, is an index, a table without images, or another kind of file.
    """
    walk = _Walk()
    for source in sources:
        if is_object(source):
            walk.take_objects(source)
            continue
        path = absolute_source(source)
        if not os.path.exists(path):
            raise UsageError(f"{source} does not exist: check the path and your rights to it")
        if not os.path.isdir(path):
            walk.take_file(source, path)
        elif _is_index(path):
            raise UsageError(f"{source} is an index, not a folder of images")
        else:
            walk.queue(0, path)
    walk.run()
    names, unreadable = tuple(sorted(walk.names, key=_order)), tuple(sorted(walk.unreadable, key=_order))
    endings = dict(sorted(walk.endings.items(), key=lambda each: (-each[1], each[0])))
    return Listing(names, walk.passed_over, unreadable, endings, walk.states)


class _Walk:
    """One walk over folders; those behind fewer symlinks come first, so that a real path wins over a link."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.passed_over = 0
        self.endings: Counter[str] = Counter()
        self.unreadable: set[Path] = set()
        self.states: dict[str, FileState] = {}
        self._waiting: list[tuple[int, bytes, Path]] = []
        self._seen: set[tuple[int, int]] = set()

    def queue(self, links: int, folder: Path) -> None:
        """Queue a folder that was reached through ``links`` symlinks."""
        heapq.heappush(self._waiting, (links, _order(folder), folder))

    def take_file(self, source: Path, path: Path) -> None:
        """Take a file that was named as a source.

        Raises:
            UsageError: it is no image and no shard with images.
        """
        if has_shard_name(path.name):
            self._take_shard(str(path), named=True)
        elif is_packed(path.name):
            raise UsageError(f"{source} is a compressed archive: unpack it, or make a plain .tar of its images")
        elif _has_image_name(path.name):
            self.names.add(str(path))
        else:
            known = ", ".join(sorted(IMAGE_SUFFIXES))
            raise UsageError(f"{source} is not an image file: its name must end in one of {known}")

    def take_objects(self, source: Path) -> None:
        """Take an object, or all objects below a prefix, in the order and with the states that the store lists.

        Raises:
            UsageError: there is none.
            RemoteStoreError: the store can't be reached.
        """
        name = object_name(source)
        if has_shard_name(name) or _has_image_name(os.path.basename(name)):
            found = [(name, state)] if (state := object_state(name)) else []
        else:
            found = list(list_objects(name))
        if not found:
            raise UsageError(f"{name} does not exist: check the bucket and the name, which has whole parts")
        for each, state in found:
            parts = each.removeprefix(name).split("/")
            if any(part.startswith(".") or _is_index(part) for part in parts[:-1]):
                continue
            if not parts[-1].startswith(".") and _has_image_name(os.path.basename(each)):
                self.names.add(each)
                self.states[each] = state
            elif has_shard_name(each):
                self._take_shard(each, named=each == name)
            else:
                self._pass_over(each)

    def _take_shard(self, path: str, named: bool = False) -> None:
        """Take the images in a shard; the shard itself, too, where reading it will say what is wrong with it."""
        try:
            shard = open_shard(path)
        except OSError:
            self.names.add(path)
            self.unreadable.add(Path(path))
            return
        if named and not shard.has_images:
            raise UsageError(f"{path} {shard.problem}")
        if not named and not shard.holds_images:
            self._pass_over(path)
            return
        found = list(member_paths(shard))
        images = found if is_table(path) else [name for name in found if _is_image_in(path, name)]
        self.names.update(images)
        if not shard.is_whole:
            self.unreadable.add(Path(path))
        if shard.problem:
            self.names.add(path)
        elif not images:
            self._pass_over(path)
        for name in set(found).difference(images) if len(images) < len(found) else ():
            self._pass_over(name)

    def _pass_over(self, name: str, hidden: bool = False) -> None:
        self.passed_over += 1
        if not hidden:
            self.endings[os.path.splitext(name)[1].lower()] += 1

    def run(self) -> None:
        """Walk all queued folders and the folders inside them."""
        while self._waiting:
            links, _, folder = heapq.heappop(self._waiting)
            try:
                status = os.stat(folder)
                identity = (status.st_dev, status.st_ino)
                if identity in self._seen:
                    continue
                self._seen.add(identity)
                with os.scandir(folder) as entries:
                    for entry in entries:
                        self._take(entry, links)
            except OSError:
                self.unreadable.add(folder)

    def _take(self, entry: os.DirEntry[str], links: int) -> None:
        hidden = entry.name.startswith(".")
        try:
            folder, regular = entry.is_dir(), entry.is_file()
        except OSError:  # a symlink that leads nowhere or in circles; reading it later gives the error
            folder = regular = False
        if folder:
            if not hidden and not _is_index(entry.path):
                self.queue(links + entry.is_symlink(), Path(entry.path))
        elif not hidden and _has_image_name(entry.name):
            self.names.add(entry.path)
        elif regular and has_shard_name(entry.name):
            self._take_shard(entry.path)
        elif regular:
            self._pass_over(entry.name, hidden)


def _is_index(folder: str | Path) -> bool:
    """Return whether this is an index, or a symlink to one."""
    return os.fspath(folder).endswith(_INDEX_SUFFIX) or os.path.realpath(folder).endswith(_INDEX_SUFFIX)


def _has_image_name(name: str) -> bool:
    return name.lstrip(".").lower().endswith(_ENDINGS)  # ".jpg" alone has no ending


def _is_image_in(tar: str, path: str) -> bool:
    """Say whether a member of a tar has the name of an image and lies in no hidden folder of it."""
    parts = path[len(tar) + 1 :].split(os.sep)
    return _has_image_name(parts[-1]) and not any(part.startswith(".") for part in parts)


def _order(path: str | Path) -> bytes:
    """Return the sort key: bytes, because locales and file systems order names differently.

    Separators become zero bytes, so the files of ``a/`` come before those of ``a b/``.
    """
    return order_of(os.fsencode(path)).replace(os.fsencode(os.sep), b"\0")


def absolute_source(source: Path) -> Path:
    """Make a path absolute; ".." is resolved unless a symlink before it changes its meaning."""
    if is_object(source):
        return source
    flat = Path(os.path.abspath(source))
    try:
        return flat if os.path.samefile(flat, source) else source.absolute()
    except (OSError, ValueError):  # ValueError: a zero byte in the name
        return source.absolute()
