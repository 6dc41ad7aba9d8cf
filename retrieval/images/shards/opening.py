"""The door to images inside shards: opened shards are kept, and opened again once their file has changed."""

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from retrieval.files import is_object, object_name
from retrieval.images.shards.naming import ARROW, TAR, ShardMember, member_of, path_of_member
from retrieval.images.shards.places import FileState, shard_state
from retrieval.images.shards.tar import TarShard

ASK_SECONDS = 60.0  # for which the state of an object in a bucket is believed
KEPT_SHARDS = 16  # open at a time; the list of a tar of 10,000 images takes 2 MB


class ImageShard(Protocol):
    """A file with images inside."""

    path: str
    state: FileState  # of the file, when it was opened

    @property
    def problem(self) -> str:
        """A clause about damage and refused members; empty for a whole shard."""

    @property
    def holds_images(self) -> bool:
        """Whether a search of folders takes it: other tables lie in folders of images, too."""

    @property
    def is_whole(self) -> bool:
        """Whether all its members are known; damage may hide some."""

    @property
    def has_images(self) -> bool:
        """Whether its members may be images; False for a table without a column of them."""

    @property
    def names_files(self) -> bool:
        """Whether its members are the names of files, and no bytes."""

    def names(self) -> Iterator[str]:
        """Yield the names of its members."""

    def size_of(self, name: str) -> int | None:
        """Return the bytes of a member; None where only reading tells. ImageError (vanished) for an unknown name."""

    def file_of(self, name: str) -> Path | None:
        """Return the file that holds a member's bytes; None if the shard does."""

    def read(self, name: str, before: Callable[[int], None] | None, most: int) -> bytes:
        """Return a member's bytes, ``most`` at most; ``before`` gets their number first. ImageError if it can't."""


_kept: OrderedDict[tuple[str, FileState], ImageShard] = OrderedDict()
_asked: dict[str, tuple[float, FileState]] = {}  # by name of an object: when its state was asked for, and the state
_lock = threading.Lock()


def open_shard(path: str) -> ImageShard:
    """Return a shard, opened now or earlier.

    Raises:
        OSError: the file is not there, or may not be read.
        RemoteStoreError: its store can't be reached.
    """
    key = _key_of(path)
    with _lock:
        if key in _kept:
            _kept.move_to_end(key)
            return _kept[key]
        shard = _opened(*key)  # under the lock: threads that decode ask for the same shard at once
        _kept[key] = shard
        if len(_kept) > KEPT_SHARDS:
            _kept.popitem(last=False)
    return shard


def _key_of(path: str) -> tuple[str, FileState]:
    """Return a shard's name and state; that of an object is asked for once a minute, not for every member."""
    if not is_object(path):
        return path, shard_state(path)
    path, now = object_name(path), time.monotonic()
    asked = _asked.get(path)
    if asked is None or now - asked[0] > ASK_SECONDS:
        asked = _asked[path] = now, shard_state(path)
    return path, asked[1]


def _opened(path: str, state: FileState) -> ImageShard:
    lower = path.lower()
    if lower.endswith(TAR):
        return TarShard(path, state)
    from retrieval.images.shards.tables import ArrowShard, ParquetShard  # pyarrow takes a while to load

    return ArrowShard(path, state) if lower.endswith(ARROW) else ParquetShard(path, state)


def find_member(path: str | Path) -> tuple[ImageShard, ShardMember] | None:
    """Return the shard and the member that ``path`` names; None for the path of a file, there or not.

    Raises:
        OSError: the shard may not be read.
    """
    member = member_of(os.fspath(path))
    if member is None or not (is_object(member.shard) or os.path.isfile(member.shard)):
        return None
    return open_shard(member.shard), member


def member_paths(shard: ImageShard) -> Iterator[str]:
    """Yield the paths of a shard's members."""
    return (path_of_member(shard.path, name) for name in shard.names())
