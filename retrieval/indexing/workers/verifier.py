"""Look for damage in one segment, wherever the worker is."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

from index_store.checks.opening import remove_tree
from index_store.generation import SegmentRecord
from index_store.layout import Layout
from index_store.remote.object_store import is_url
from index_store.remote.pull import fetch_as_it_is
from index_store.remote.scratch import remove_scratch, scratch_mirror
from index_store.repair.damage import Damage, segment_damage
from index_store.tensors.shards import LocalShards, MirrorShards, Shards


@dataclass(frozen=True)
class VerifySegmentJob:
    """A segment whose every byte is read."""

    root: Path  # of the index where the driver is, as messages name it
    name: str  # of the job
    record: SegmentRecord
    tombstones: tuple[int, ...]  # of the generation


class SegmentVerifier:
    """Reads segments of one index, from its folder or from its object store."""

    def __init__(self, index: str) -> None:
        """Take the index's folder or URL."""
        self._mirror = scratch_mirror(index) if is_url(index) else None
        self._layout = self._mirror.layout if self._mirror else Layout(Path(index))
        self._shards: Shards = LocalShards()
        if self._mirror is not None:
            self._shards = MirrorShards(self._layout.root, self._mirror.store)

    def ready(self) -> int:
        """Return the number of this process."""
        return os.getpid()

    def close(self) -> None:
        """Remove the folder for files of an object store."""
        if self._mirror is not None:
            remove_scratch(self._mirror)

    def do(self, job: object) -> list[Damage]:
        """Return the damage of a segment; its files of an object store are fetched, and removed afterwards.

        Raises:
            IndexUnreadableError: the system refused to read a file, which may be whole.
            RemoteStoreError: the store can't be reached.
        """
        if not isinstance(job, VerifySegmentJob):
            raise TypeError(f"a verifier does no {type(job).__name__}")
        if self._mirror is not None:
            fetch_as_it_is(self._mirror, job.record)
        found = list(segment_damage(self._layout, self._shards, job.record, frozenset(job.tombstones)))
        if self._mirror is None:
            return found
        remove_tree(self._layout.segment(job.record.name))
        here, there = str(self._layout.root), str(job.root)
        return [replace(damage, what=damage.what.replace(here, there)) for damage in found]
