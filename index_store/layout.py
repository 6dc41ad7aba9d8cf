"""The name of every file in an index, and which index a command means.

coco.diffsim/
  CURRENT                              name of the current generation: the one thing ever replaced
  LOCK                                 held by the one writer
  generations/000012.json              what the index is made of at that moment
  items/<segment>/items.parquet        one row an image
  items/<segment>/rejects.parquet      one row an image that could not be used, with the reason
  items/<segment>/moved.parquet        new catalogue rows of older items: renamed or touched files
  items/<segment>/vectors/<encoder>.npy
  items/<segment>/filled.npy           ids: the segment's vectors and tensors are those of these older items
  attention/<mode>/<segment>.zarr      q, k, v, or what else the codec names
  projections/<digest>.npz             what makes q, k, v of a stored layer input
  REMOTE                               in a mirror only: the object store that the index really lies in
  cache/<mode>/...                     what searches computed on demand: part of no generation, deletable at any time
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from index_store.errors import IndexNotFoundError, IndexStoreError, UsageError
from index_store.objects import is_url, parse_url

SUFFIX = ".diffsim"
INDEX_VARIABLE = "DIFFSIM_INDEX"


@dataclass(frozen=True)
class Layout:
    """Paths inside the index at ``root``; touches no disk."""

    root: Path

    @property
    def current(self) -> Path:
        """The file whose replacement is a commit."""
        return self.root / "CURRENT"

    @property
    def lock(self) -> Path:
        """The writer's lock."""
        return self.root / "LOCK"

    @property
    def remote(self) -> Path:
        """The file that makes this folder the mirror of an object store; see :mod:`index_store.mirror`."""
        return self.root / "REMOTE"

    @property
    def generations(self) -> Path:
        """The folder of generation files."""
        return self.root / "generations"

    def generation(self, number: int) -> Path:
        """Return the file of generation ``number``."""
        return self.generations / f"{number:06d}.json"

    def segment(self, segment: str) -> Path:
        """Return the folder of a segment's catalogue and vectors."""
        return self.root / "items" / segment

    def items(self, segment: str) -> Path:
        """Return a segment's catalogue."""
        return self.segment(segment) / "items.parquet"

    def rejects(self, segment: str) -> Path:
        """Return a segment's rejected images."""
        return self.segment(segment) / "rejects.parquet"

    def moved(self, segment: str) -> Path:
        """Return a segment's new catalogue rows of items of older segments."""
        return self.segment(segment) / "moved.parquet"

    def filled(self, segment: str) -> Path:
        """Return the ids of the older items whose vectors and tensors a segment holds."""
        return self.segment(segment) / "filled.npy"

    def shards(self, segment: str) -> Path:
        """Return the checksums of the first rows of a segment's shards of tensors."""
        return self.segment(segment) / "shards.json"

    def vectors(self, segment: str, encoder: str) -> Path:
        """Return a segment's vectors of one encoder."""
        return self.segment(segment) / "vectors" / f"{encoder}.npy"

    def attention(self, mode: str, segment: str) -> Path:
        """Return a segment's tensors of one mode."""
        return self.root / "attention" / mode / f"{segment}.zarr"

    def projection(self, digest: str) -> Path:
        """Return the projection whose content has this SHA-256."""
        return self.root / "projections" / f"{digest[:16]}.npz"

    @property
    def cache(self) -> Path:
        """The folder of tensors that searches computed; see :mod:`index_store.cache`."""
        return self.root / "cache"

    @property
    def derived(self) -> Path:
        """What can be made again from the rest: nothing depends on it, and it may be deleted at any time."""
        return self.root / "derived"

    def trained(self, encoder: str) -> Path:
        """Return the description of the trained index over one encoder's vectors."""
        return self.derived / f"{encoder}.json"


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

    A URL is returned as one, a string: what lies there is for :func:`index_store.pull.existing_root` to find out.

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
