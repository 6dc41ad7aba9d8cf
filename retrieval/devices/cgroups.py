"""The memory that a control group (a container's limit) still grants this process, on Linux."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple


class _Names(NamedTuple):
    """Where a version of control groups is mounted, and the names of its files."""

    mount: str
    limit: str
    usage: str
    reclaimable: str  # the line of memory.stat with file caches, which the kernel frees on demand


_V2 = _Names("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file")
_V1 = _Names("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def memory_left(root: Path = Path("/")) -> int | None:
    """Return the bytes that this process may still take, or None if no control group limits its memory.

    A limit also holds for all groups inside, so the smallest rest from the process's own group up to the mount counts.
    Memory of file caches counts as free.

    Args:
        root: the folder that holds ``proc`` and ``sys``; tests pass their own.
    """
    left = [rest for names, folder in _own_groups(root) if (rest := _rest(folder, names)) is not None]
    return min(left, default=None)


def _own_groups(root: Path) -> Iterator[tuple[_Names, Path]]:
    """Yield the folders of the groups that this process belongs to, innermost first."""
    try:
        lines = (root / "proc/self/cgroup").read_text("utf-8").splitlines()
    except OSError:  # not Linux, or no control groups
        return
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0" or "memory" in controllers.split(","):
            names = _V2 if number == "0" else _V1
            own = PurePosixPath(path)
            # A container may show only the end of the path under its mount; folders that do not exist are skipped.
            for group in (own, *own.parents):
                yield names, root / names.mount / str(group).lstrip("/")


def _rest(folder: Path, names: _Names) -> int | None:
    try:
        limit = int((folder / names.limit).read_text("ascii"))
        used = int((folder / names.usage).read_text("ascii"))
        lines = (folder / "memory.stat").read_text("ascii").splitlines()
    except (OSError, ValueError):  # no such group, or the word "max": no limit
        return None
    cached = next((int(line.split()[1]) for line in lines if line.startswith(f"{names.reclaimable} ")), 0)
    return max(0, limit - max(0, used - cached))
