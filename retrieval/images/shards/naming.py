"""Names of images inside shards: ``photos/shard-000.tar/000123.jpg`` and ``photos/part-0.parquet#17``.

Such a name has the form of a path, so catalogues, filters and sources treat it like one. No file of that name can be
opened: the shard is a file, and files have nothing below them.
"""

import os
import re
from typing import NamedTuple

TAR, PARQUET, ARROW = ".tar", ".parquet", ".arrow"
_SUFFIXES = (TAR, PARQUET, ARROW)
_TABLES = (PARQUET, ARROW)
_PACKED = re.compile(r"\.(tar\.(gz|bz2|xz|zst)|tgz|tbz2?|txz|zip)$", re.IGNORECASE)
_ROW = re.compile(r"#(\d+)$")
_CACHE = "cache-"  # begins the names of tables that the library datasets keeps for itself


class ShardMember(NamedTuple):
    """An image in a shard: the shard's path, and the image's name in a tar or the number of its row."""

    shard: str
    name: str


def has_shard_name(name: str) -> bool:
    """Say whether a file's name is that of a shard that folders are searched for."""
    lower = os.path.basename(name).lower()
    return lower.endswith(_SUFFIXES) and not lower.startswith((".", _CACHE))


def is_table(name: str) -> bool:
    """Say whether a shard's name is that of a table, whose images are numbered rows."""
    return name.lower().endswith(_TABLES)


def is_packed(name: str) -> bool:
    """Say whether a name is that of a compressed archive, in which no member can be read alone."""
    return _PACKED.search(name) is not None


def member_of(path: str) -> ShardMember | None:
    """Return the shard and the member that a path may name, by its form alone; None for an ordinary path."""
    row = _ROW.search(path)
    if row and is_table(path[: row.start()]):
        return ShardMember(path[: row.start()], row[1])
    end = path.lower().find(TAR + os.sep)
    if end <= 0:
        return None
    shard, name = path[: end + len(TAR)], path[end + len(TAR) + 1 :].replace(os.sep, "/")
    return ShardMember(shard, name) if name else None


def path_of_member(shard: str, name: str) -> str:
    """Return the path of the member ``name`` of a shard."""
    return f"{shard}#{name}" if is_table(shard) else os.path.join(shard, *name.split("/"))


def prefixes_below(path: str) -> tuple[str, ...]:
    """Return the prefixes of the paths of everything below ``path``: a folder, a tar, or a table with its rows."""
    return (os.path.join(path, ""), f"{path}#") if is_table(path) else (os.path.join(path, ""),)


def order_of(path: bytes) -> bytes:
    """Return ``path`` so that the rows of a table sort by number."""
    head, mark, row = path.rpartition(b"#")
    return head + mark + row.zfill(12) if mark and row.isdigit() and is_table(os.fsdecode(head)) else path
