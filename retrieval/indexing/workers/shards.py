"""Builds without a scheduler: machine i of n indexes its part of the images, and one merge takes all parts.

A part is an index of its own, beside the index that it belongs to: ``coco.diffsim-shards/0003-of-0016.diffsim``.
Machines need nothing of each other, and a stopped one goes on where it was.
"""

import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zlib import crc32

from index_store.catalog import uri_of
from index_store.layout import SUFFIX
from index_store.locate import is_index
from index_store.reader import IndexReader
from index_store.remote.object_store import is_url
from retrieval.encoding.recipe import stored_recipe
from retrieval.errors import IndexNotFoundError, UsageError
from retrieval.images.discovery import Listing
from retrieval.images.file_states import FileState, is_same
from retrieval.images.shards.naming import member_of
from retrieval.indexing.upkeep.change import Change
from retrieval.indexing.upkeep.merging import merge_indexes
from retrieval.progress import Cancellation, OnProgress, ignore_progress

_NAME = re.compile(rf"(\d{{4,}})-of-(\d{{4,}}){re.escape(SUFFIX)}")


@dataclass(frozen=True)
class IndexPart:
    """Part ``number`` (from 1) of ``of`` parts.

    The path of an image, or of the tar or table around it, decides its part, so parts stay when others come.
    """

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> "IndexPart":
        """Read ``i/n``, like ``3/16``; UsageError for other text."""
        found = re.fullmatch(r"(\d+)/(\d+)", text.strip())
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise UsageError(f"'{text}' is not a part: write i/n, like 3/16, with i from 1 to n")
        return cls(int(found[1]), int(found[2]))

    def part_of(self, index: str | Path, listing: Listing) -> Listing:
        """Return the images of this part, without those that ``index`` holds with the same size and time."""
        known = _known_files(Path(index))
        mine = (
            name for name in listing.names if self._holds(name) and not self._has(known, name, listing.state_of(name))
        )
        return replace(listing, names=tuple(mine))

    def _has(self, known: dict[str, tuple[int, int]], name: str, state: FileState) -> bool:
        before = known.get(uri_of(name))
        return before is not None and is_same(state, (*before, -1))

    def _holds(self, name: str) -> bool:
        member = member_of(name)  # one part reads a whole shard
        return crc32((member.shard if member else name).encode(errors="surrogateescape")) % self.of == self.number - 1


def _known_files(index: Path) -> dict[str, tuple[int, int]]:
    """Return size and time of modification of the items of an index, by path; empty for a new index."""
    if not is_index(index):
        return {}
    catalog = IndexReader(index).catalog
    sizes, modified, _ = catalog.file_states()
    return dict(zip(catalog.uris(), zip(sizes.tolist(), modified.tolist(), strict=True), strict=True))


def shard_index(index: str | Path, shard: IndexPart) -> Path:
    """Return the folder of a part's own index.

    Raises:
        UsageError: ``index`` lies in an object store, whose workers need a scheduler.
    """
    return shards_of(index) / f"{shard.number:04d}-of-{shard.of:04d}{SUFFIX}"


def shards_of(index: str | Path) -> Path:
    """Return the folder that holds the parts of ``index``; UsageError for an object store."""
    if is_url(str(index)):
        raise UsageError(f"parts of {index} need a folder that all machines see; an object store needs a Ray cluster")
    path = Path(index)
    return path.with_name(f"{path.name}-shards")


def choices_of(index: str | Path) -> dict[str, Any]:
    """Return the modes and model choices that parts of an existing index must have; empty for a new index."""
    if not is_index(Path(index)):
        return {}
    recipe = stored_recipe(IndexReader(Path(index)), Path(index))
    return {"modes": list(recipe.targets), **recipe.settings.to_json()}


def commit_shards(
    index: str | Path, *, on_progress: OnProgress = ignore_progress, cancel: Cancellation | None = None
) -> Change:
    """Merge the parts of ``index`` into it, then remove them.

    Raises:
        IndexNotFoundError: there are no parts.
        UsageError: parts of several divisions lie there, or one is missing.
        IndexIncompatibleError, IndexLockedError, NoSpaceError: see :func:`merge_indexes`.
    """
    folder = shards_of(index)
    parts = sorted(path for path in folder.glob(f"*{SUFFIX}") if _NAME.fullmatch(path.name) and is_index(path))
    if not parts:
        raise IndexNotFoundError(f"there are no parts in {folder}: workers write them", index=index)
    _check_complete(folder, parts)
    change = merge_indexes(index, parts, on_progress=on_progress, cancel=cancel)
    shutil.rmtree(folder)
    return change


def _check_complete(folder: Path, parts: list[Path]) -> None:
    found = [_NAME.fullmatch(path.name) for path in parts]
    numbers = [(int(each[1]), int(each[2])) for each in found if each is not None]
    divisions = sorted({of for _, of in numbers})
    if len(divisions) > 1:
        raise UsageError(f"{folder} holds parts of several divisions ({', '.join(f'n = {n}' for n in divisions)})")
    missing = sorted(set(range(1, divisions[0] + 1)) - {number for number, _ in numbers})
    if missing:
        names = ", ".join(f"{number}/{divisions[0]}" for number in missing[:8])
        raise UsageError(f"{len(missing)} of {divisions[0]} parts are missing in {folder}: {names}")
