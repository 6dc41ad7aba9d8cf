"""Pictures in retired segments: a compaction leaves removed items out, and the old segments stay for a day."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from index_store.catalog import Item
from index_store.generation import generation_files, is_complete, read_generation
from index_store.reader import IndexReader
from retrieval.encoding.recipe import ATTENTION
from retrieval.errors import IndexCorruptError, IndexUnreadableError
from retrieval.settings import BuildSettings


@dataclass(frozen=True)
class RetiredItems:
    """The items of an older generation, removed ones included, as far as they have all that the index stores."""

    reader: IndexReader
    whole: NDArray[np.bool_]  # which of its items

    @property
    def sizes(self) -> NDArray[np.int64]:
        """The bytes of the items' files, int64."""
        return self.reader.file_states()[0][self.whole]

    def like(self, digests: Collection[str]) -> list[Item]:
        """Return the items with the content of ``digests``."""
        rows = [row for row in self.reader.catalog.with_content(digests) if self.whole[row]]
        return self.reader.items(rows) if rows else []


def open_retired(reader: IndexReader, run: BuildSettings) -> Iterator[RetiredItems]:
    """Open the older generations of ``reader`` whose retired segments are all on the disk, newest first.

    Only generations of the same models count. Their records know which rows a repair took out since.
    """
    generation = reader.generation
    seen = {segment.name for segment in generation.segments}
    for path in reversed(generation_files(reader.layout)) if generation.retired else ():
        if int(path.stem) >= generation.number or not is_complete(reader.layout, path):
            continue
        older = read_generation(path)
        names = {segment.name for segment in older.segments}
        if (
            older.fingerprint != generation.fingerprint
            or not names - seen <= generation.retired.keys()
            or names <= seen
        ):
            continue
        try:
            found = IndexReader(reader.layout.root, replace(older, tombstones=(), sources=generation.sources))
            yield RetiredItems(found, _whole_items(found, run))
        except (IndexCorruptError, IndexUnreadableError):  # nothing is lost: the pictures are computed again
            continue
        seen |= names


def _whole_items(reader: IndexReader, run: BuildSettings) -> NDArray[np.bool_]:
    whole = np.ones(len(reader), bool)
    for encoder in reader.generation.encoders:
        whole &= reader.has_vector(encoder)
    if (run.attention or reader.generation.settings.get(ATTENTION)) != "lazy":
        for mode in reader.generation.stored_names:
            whole &= reader.has_tensors(mode)
    return whole
