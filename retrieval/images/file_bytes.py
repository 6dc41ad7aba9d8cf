"""Read the bytes of an image, a file or a member of a shard, with a reason for every one that can't be read."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

from retrieval.errors import ImageError
from retrieval.files import is_object, read_object
from retrieval.images.file_states import FileState, state_in
from retrieval.images.shards.naming import ShardMember, has_shard_name, member_of
from retrieval.images.shards.opening import ImageShard, find_member, open_shard

# A larger file is not read: no known format needs more bytes for an image of a sensible size.
_MAX_FILE_BYTES = 2**32

READ_ERROR = "can't be read: "  # begins the detail of a file that the system failed to read; it may be there later


def read_bytes(path: Path, before: Callable[[int], None] | None = None) -> tuple[bytes, FileState]:
    """Return the bytes of an image and its state when it was opened: a regular file, or a member of a shard.

    It never waits for a FIFO. ``before`` is called with the file's size in bytes before memory is taken for it.

    Raises:
        RemoteStoreError: a store can't be reached.
        ImageError: bad_name, permission, vanished, too_large (above 4 GiB), or unreadable.
        MemoryError: the file does not fit.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        shown = os.fsencode(path).decode("utf-8", "backslashreplace")
        detail = "has a name that is not valid UTF-8; rename the file or folder with the escaped bytes (\\x..)"
        raise ImageError("bad_name", shown, detail) from error
    name = str(path)
    try:
        if member_of(name) is not None and (found := find_member(name)):
            return _read_member(*found, before)
        if has_shard_name(name) and (is_object(name) or os.path.isfile(name)):
            raise ImageError("unreadable", name, open_shard(name).problem or "is a shard: name an image in it")
        return _read_object(name, before) if is_object(name) else _read_file(path, before)
    except PermissionError as error:
        raise ImageError("permission", name, "may not be read by this user") from error
    except FileNotFoundError as error:
        raise ImageError("vanished", name, "does not exist (any more)") from error
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        cause = getattr(error, "strerror", None) or error
        raise ImageError("unreadable", name, f"{READ_ERROR}{cause}") from error


def _read_file(path: Path, before: Callable[[int], None] | None) -> tuple[bytes, FileState]:
    with open(path, "rb", opener=_open_without_waiting) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("unreadable", str(path), "is not a regular file")
        if status.st_size > _MAX_FILE_BYTES:
            raise ImageError("too_large", str(path), f"is a file of {status.st_size} bytes")
        if before is not None:
            before(status.st_size)
        return file.read(), state_in(status)


def _read_object(name: str, before: Callable[[int], None] | None) -> tuple[bytes, FileState]:
    def check(size: int) -> None:
        if size > _MAX_FILE_BYTES:
            raise ImageError("too_large", name, f"is an object of {size} bytes")
        if before is not None:
            before(size)

    found = read_object(name, check)
    if found is None:
        raise FileNotFoundError(name)
    return found


def _read_member(
    shard: ImageShard, member: ShardMember, before: Callable[[int], None] | None
) -> tuple[bytes, FileState]:
    """Return the bytes of a member and its state: its own size, and the times of the file that holds it."""
    if file := shard.file_of(member.name):
        return _read_file(file, before)
    data = shard.read(member.name, before, _MAX_FILE_BYTES)
    return data, (len(data), *shard.state[1:])


def _open_without_waiting(path: str, flags: int) -> int:
    """Open for reading; without O_NONBLOCK the call would wait until somebody writes to a FIFO."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
