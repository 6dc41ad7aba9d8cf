"""Find the index that a command means, and the place for a new one."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from index_store.errors import IndexNotFoundError, IndexStoreError, UsageError
from index_store.layout import SUFFIX, Layout
from index_store.remote.object_store import is_url, parse_url

INDEX_VARIABLE = "DIFFSIM_INDEX"


def was_committed(layout: Layout) -> bool:
    """Say whether there is an index to go on with: not where the very first, empty commit was cut short."""
    later = [path for path in layout.generations.glob("[0-9]*.json") if path.name != layout.generation(1).name]
    return layout.current.exists() or bool(later)


def may_become_index(path: Path) -> bool:
    """Say whether an index may be made at ``path``: nothing is there, or nothing but what an index holds."""
    ours = {"CURRENT", "LOCK", "REMOTE", "generations", "items", "attention", "projections", "derived", "cache"}
    with _looking_into(path):
        return not path.exists() or (path.is_dir() and all(entry.name in ours for entry in path.iterdir()))


def is_index(path: Path) -> bool:
    """Say whether ``path`` looks like an index, damaged or not.

    Raises:
        IndexStoreError: this user may not look into it.
    """
    layout = Layout(path)
    with _looking_into(path):
        return layout.current.exists() or layout.generations.is_dir()


def _may_be_index(path: Path) -> bool:
    """Say whether ``path`` looks like an index, or can't be looked into: then it is for the user to say."""
    try:
        return is_index(path)
    except IndexStoreError:
        return True


@contextmanager
def _looking_into(path: Path) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise IndexStoreError(
            f"{path} may not be read by this user; change its permissions, or name another index"
        ) from error


def require_index(path: Path) -> Path:
    """Return ``path``, or raise IndexNotFoundError where there is no index."""
    if not is_index(path):
        what = "is no index" if os.path.exists(path) else "does not exist"
        raise IndexNotFoundError(f"{path} {what}; make one with: diffsim-index build FOLDER --index {path}")
    return path


def new_index_path(sources: Sequence[Path], folder: Path) -> Path:
    """Return the index that a build of ``sources`` makes in ``folder`` when none is named: coco -> coco.diffsim.

    Raises:
        UsageError: several sources, so that no name suggests itself.
    """
    if len(sources) != 1:
        raise UsageError("several sources: name the index with --index NAME.diffsim")
    name = Path(os.path.abspath(sources[0])).name or "root"  # a symlink keeps the name that it was called by
    return folder / f"{name}{SUFFIX}"


def find_index(named: str | Path | None, environment: Mapping[str, str], folder: Path) -> str | Path:
    """Return the index a command means: the one ``named``, else $DIFFSIM_INDEX, else the only one in ``folder``.

    A URL is returned as a string; :func:`index_store.remote.pull.existing_root` finds out what lies there.

    Raises:
        IndexNotFoundError: there is none, or several; the message lists them.
    """
    given = named or environment.get(INDEX_VARIABLE)
    if given:
        return parse_url(str(given)) if is_url(str(given)) else require_index(Path(given))
    found = sorted(path for path in folder.glob(f"*{SUFFIX}") if _may_be_index(path))
    if not found:
        raise IndexNotFoundError(
            f"no index in {folder}; make one with: diffsim-index build FOLDER, or name one with --index"
        )
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise IndexNotFoundError(f"several indexes in {folder} ({names}); name one with --index")
    return found[0]
