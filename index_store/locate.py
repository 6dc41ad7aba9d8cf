"""Find the index that a user means, and the place for a new one."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from index_store.checks.opening import exists_inside, list_inside
from index_store.errors import IndexNotFoundError, IndexStoreError, UsageError
from index_store.files import is_temporary, reading
from index_store.layout import SUFFIX, Layout
from index_store.remote.object_store import is_url, parse_url

INDEX_VARIABLE = "DIFFSIM_INDEX"


def was_committed(layout: Layout) -> bool:
    """Say whether there is an index to continue; there is none if the very first, empty commit was cut short.

    Raises:
        IndexCorruptError: the folder of generations is a symbolic link.
        IndexUnreadableError: this user may not list it.
    """
    names: list[str] = []
    with reading(layout.generations), suppress(FileNotFoundError, NotADirectoryError):
        names = list_inside(layout.generations)
    later = [name for name in names if name[:1].isdecimal() and name.endswith(".json")]
    return exists_inside(layout.current) or bool({*later} - {layout.generation(1).name})


def may_become_index(path: Path) -> bool:
    """Say whether an index may be made at ``path``: it does not exist, or holds only an index's own files."""
    ours = {"CURRENT", "LOCK", "REMOTE", "generations", "items", "attention", "projections", "derived", "cache"}
    with _looking_into(path):
        names = [entry.name for entry in path.iterdir()] if path.is_dir() else []
        return not path.exists() or (path.is_dir() and all(name in ours or is_temporary(name) for name in names))


def is_index(path: Path) -> bool:
    """Say whether ``path`` looks like an index, damaged or not.

    Raises:
        IndexStoreError: this user may not look into it.
    """
    layout = Layout(path)
    with _looking_into(path):
        return layout.current.exists() or layout.generations.is_dir()


def _may_be_index(path: Path) -> bool:
    """Say whether ``path`` looks like an index, or may not be read: then the user must decide."""
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
    """Return ``path``; IndexNotFoundError if there is no index."""
    if not is_index(path):
        problem = "is not an index" if os.path.exists(path) else "does not exist"
        raise IndexNotFoundError(f"{path} {problem}", advice="make-index", index=path)
    return path


def new_index_path(sources: Sequence[Path], folder: Path) -> Path:
    """Return the path in ``folder`` of a new index without a given name: ``coco`` becomes ``coco.diffsim``.

    Raises:
        UsageError: several sources, which suggest no single name.
    """
    if len(sources) != 1:
        raise UsageError("several sources suggest no single name for the index", advice="name-new-index")
    name = Path(os.path.abspath(sources[0])).name or "root"  # a symbolic link keeps its own name
    return folder / f"{name}{SUFFIX}"


def place_of_build(sources: Sequence[Path], folder: Path) -> Path:
    """Return the index that a build of ``sources`` without a named index goes into.

    That is the index in ``folder`` with the name of the source, else the only index there, else a new one with that
    name.

    Raises:
        IndexNotFoundError: there are several, and none has the name; the message lists them.
        UsageError: there is none, and several sources suggest no single name.
    """
    found = _indexes_in(folder)
    own = new_index_path(sources, folder) if len(sources) == 1 or not found else None
    if own is not None and (own in found or not found):
        return own
    return _the_only(found, folder)


def find_index(named: str | Path | None, environment: Mapping[str, str], folder: Path) -> str | Path:
    """Return the index that a user means: ``named``, else $DIFFSIM_INDEX, else the only one in ``folder``.

    A URL is returned as a string, unchecked: :func:`index_store.remote.pull.existing_root` opens it.

    Raises:
        IndexNotFoundError: there is none, or there are several; the message lists them.
        UsageError: a URL that can't name an index.
    """
    given = named or environment.get(INDEX_VARIABLE)
    if given:
        return parse_url(str(given)) if is_url(str(given)) else require_index(Path(given))
    found = _indexes_in(folder)
    if not found:
        raise IndexNotFoundError(f"no index in {folder}", advice="make-or-name-index")
    return _the_only(found, folder)


def _indexes_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob(f"*{SUFFIX}") if _may_be_index(path))


def _the_only(found: Sequence[Path], folder: Path) -> Path:
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise IndexNotFoundError(f"several indexes in {folder} ({names})", advice="name-index")
    return found[0]
