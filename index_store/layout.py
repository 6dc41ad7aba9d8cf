"""The path of every file in an index; FORMAT.md says what the files hold.

coco.diffsim/
  CURRENT                              name of the current generation: the only file that is ever replaced
  LOCK                                 held by the one writer
  generations/000012.json              a snapshot: every file that the index consists of
  generations/000012.spare             a second copy of it
  items/<segment>/items.parquet        one row an image
  items/<segment>/rejects.parquet      one row an image that could not be used, with the reason
  items/<segment>/moved.parquet        new catalogue rows of older items: renamed, touched or revived files
  items/<segment>/filled.npy           ids: the segment's vectors and tensors belong to these older items
  items/<segment>/shards.json          checksum of the first row of each shard of tensors
  items/<segment>/vectors/<encoder>.npy
  items/<segment>/segment.json         the segment's record, and the generation that it was written for
  items/<segment>/spare/...            a second copy of each of these files, except the vectors
  attention/<name>/<segment>.zarr      tensors: q, k, v, or the arrays that the codec names; modes may share a name
  projections/<digest>.npz             weights that turn a stored layer input into q, k, v
  derived/<encoder>.json, *.faiss      IVF index over the vectors: deletable at any time
  derived/<mode>.scores                scores of random pairs of images: deletable at any time
  cache/<name>/...                     tensors that searches computed: part of no generation, deletable at any time
  REMOTE                               only in a mirror: the object store that the index really lies in
"""

import re
from dataclasses import dataclass
from pathlib import Path

SUFFIX = ".diffsim"
SEGMENT_FILE = "segment.json"
SPARE = "spare"


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

    def spare_generation(self, number: int) -> Path:
        """Return the second copy of the file of generation ``number``."""
        return self.generation(number).with_suffix(".spare")

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
        """Return a segment's new catalogue rows for items of older segments."""
        return self.segment(segment) / "moved.parquet"

    def filled(self, segment: str) -> Path:
        """Return the ids of the older items that a filled segment's vectors and tensors belong to."""
        return self.segment(segment) / "filled.npy"

    def shards(self, segment: str) -> Path:
        """Return the checksums of the first rows of a segment's shards of tensors."""
        return self.segment(segment) / "shards.json"

    def own_record(self, segment: str) -> Path:
        """Return the file by which a segment describes itself; see :mod:`index_store.segment_file`."""
        return self.segment(segment) / SEGMENT_FILE

    def vectors(self, segment: str, encoder: str) -> Path:
        """Return a segment's vectors of one encoder."""
        return self.segment(segment) / vectors_file(encoder)

    def attention(self, name: str, segment: str) -> Path:
        """Return a segment's tensors that are stored under ``name``, see :attr:`Generation.tensors`."""
        return self.root / "attention" / name / f"{segment}.zarr"

    def projection(self, digest: str) -> Path:
        """Return the projection whose content has this SHA-256."""
        return self.root / "projections" / f"{digest[:16]}.npz"

    @property
    def cache(self) -> Path:
        """The folder of tensors that searches computed; see :mod:`index_store.tensors.cache`."""
        return self.root / "cache"

    @property
    def derived(self) -> Path:
        """The folder of IVF indexes and samples of scores: made from the rest, deletable at any time."""
        return self.root / "derived"

    def ivf_record(self, encoder: str) -> Path:
        """Return the description of the IVF index over one encoder's vectors."""
        return self.derived / f"{file_name(encoder)}.json"

    def ivf_index(self, encoder: str, number: int) -> Path:
        """Return the IVF index over one encoder's vectors that generation ``number`` trained."""
        return self.derived / f"{file_name(encoder)}-{number:06d}.faiss"

    def score_sample(self, mode: str) -> Path:
        """Return the scores of random pairs of one mode; see :mod:`index_store.calibration.record`."""
        return self.derived / f"{file_name(mode)}.scores"


def twin_of(file: str) -> str:
    """Return the path of a segment's file's other copy; both are relative to the segment's folder."""
    folder, separator, rest = file.partition("/")
    return rest if separator and folder == SPARE else f"{SPARE}/{file}"


def vectors_file(encoder: str) -> str:
    """Return the path of an encoder's vectors relative to the segment's folder."""
    return f"vectors/{file_name(encoder)}.npy"


def file_name(encoder: str) -> str:
    """Return an encoder's name for files: the slash and the colon of a repository's name become ``=2F`` and ``=3A``."""
    return re.sub(r"[^\w@.-]", lambda found: f"={ord(found[0]):02X}", encoder)
