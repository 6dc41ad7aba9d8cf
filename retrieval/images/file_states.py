"""Whether a file is there, and whether it has changed: files, and images inside shards, by the same functions."""

import os
from pathlib import Path

from retrieval.errors import ImageError
from retrieval.files import is_object, object_state
from retrieval.images.shards.naming import member_of
from retrieval.images.shards.opening import find_member
from retrieval.images.shards.places import FileState, state_in


def state_of(path: str | Path) -> FileState:
    """Return the current state of a file."""
    if is_object(path) and member_of(os.fspath(path)) is None:
        return object_state(path) or (-1, -1, -1)
    try:
        return state_in(os.stat(path))
    except (OSError, ValueError):  # ValueError: a zero byte in the name
        return _state_inside(path)


def is_same(state: FileState, stored: FileState) -> bool:
    """Say whether a file is as it was; an index of an older format, or of another system, knows no ctime."""
    if state[0] != stored[0] and (state[0] != -1 or state[1] == -1):
        return False
    return state[1] == stored[1] and (state[2] == stored[2] or -1 in (state[2], stored[2]))


def may_have_size(state: FileState, size: int) -> bool:
    """Say whether a file is there, and of ``size`` bytes as far as its state tells."""
    return state[0] == size or (state[0] == -1 and state[1] != -1)


def is_there(path: str | Path) -> bool:
    """Say whether a file, or the shard that an image lies in, exists; a link that leads nowhere does.

    An object in a bucket counts as there: a request for each would take longer than a search. Builds look for them.
    """
    if is_object(path) or os.path.lexists(path):
        return True
    member = member_of(os.fspath(path))
    return member is not None and os.path.isfile(member.shard)


def _state_inside(path: str | Path) -> FileState:
    try:
        found = find_member(path)
        if found is None:
            return -1, -1, -1
        shard, (_, name) = found
        size = shard.size_of(name)
        if shard.names_files:
            return state_in(os.stat(shard.file_of(name) or ""))
    except (ImageError, OSError, ValueError):
        return -1, -1, -1
    return -1 if size is None else size, *shard.state[1:]


__all__ = ["FileState", "is_same", "is_there", "may_have_size", "state_in", "state_of"]
