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

from dataclasses import dataclass
from pathlib import Path

SUFFIX = ".diffsim"


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
        """The file that makes this folder the mirror of an object store; see :mod:`index_store.remote.mirror`."""
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
        """The folder of tensors that searches computed; see :mod:`index_store.tensors.cache`."""
        return self.root / "cache"

    @property
    def derived(self) -> Path:
        """What can be made again from the rest: nothing depends on it, and it may be deleted at any time."""
        return self.root / "derived"

    def trained(self, encoder: str) -> Path:
        """Return the description of the trained index over one encoder's vectors."""
        return self.derived / f"{encoder}.json"
