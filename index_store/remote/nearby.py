"""Tensors near a reader of an index in an object store: files of some segments in its mirror, within a budget.

Readers look for a shard in the mirror before they ask the store (:mod:`index_store.tensors.shards`), so a file that is
here is read from the disk. Every row is compared with its checksum, as it is when it comes from the store.
"""

import logging
import threading
from collections.abc import Sequence
from contextlib import suppress

from index_store.checks.opening import exists_inside, remove_tree
from index_store.errors import DiffSimError
from index_store.files import files_below, replace_file
from index_store.garbage import tensor_groups
from index_store.generation import Generation
from index_store.layout import Layout
from index_store.remote.mirror import Mirror, find_mirror

LOG = logging.getLogger(__name__)


class NearbyTensors:
    """Fetches the tensors of chosen segments in a thread; the mirror must belong to one reader alone."""

    def __init__(self, layout: Layout, budget: int) -> None:
        """Keep at most ``budget`` bytes in the mirror at ``layout``."""
        self._layout, self._budget = layout, budget
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.held = 0  # bytes

    def keep(self, generation: Generation, segments: Sequence[str]) -> None:
        """Begin to fetch the tensors of ``segments``, in that order, and drop those of all others."""
        self._stop.set()
        self.wait()
        self._stop.clear()
        work = threading.Thread(target=self._fetch_all, args=(generation, list(segments)), daemon=True)
        self._thread = work
        work.start()

    def wait(self) -> None:
        """Wait until what was begun is done."""
        if self._thread is not None:
            self._thread.join()

    def _fetch_all(self, generation: Generation, segments: Sequence[str]) -> None:
        try:
            mirror = find_mirror(self._layout)
            if mirror is None:
                return
            self._drop(set(segments))
            self.held = sum(status.st_size for _, status in files_below(self._layout.root / "attention"))
            modes = {segment.name: tuple(segment.attention) for segment in generation.segments}
            for name in segments:
                for mode in modes.get(name, ()):
                    if not self._fetch(
                        mirror, self._layout.attention(mode, name).relative_to(self._layout.root).as_posix()
                    ):
                        return
        except (DiffSimError, OSError) as error:
            LOG.warning(
                "%s: tensors are read from the store, since they can't be kept here: %s", self._layout.root, error
            )

    def _drop(self, kept: set[str]) -> None:
        for group in tensor_groups(self._layout):
            if group.name.removesuffix(".zarr") not in kept:
                with suppress(OSError):
                    remove_tree(group)

    def _fetch(self, mirror: Mirror, folder: str) -> bool:
        """Fetch the files below ``folder``; return False once the budget is used, or the work should stop."""
        for entry in mirror.store.list(folder):
            path = self._layout.root / entry.key
            if exists_inside(path):
                continue
            if self._stop.is_set() or self.held + entry.size > self._budget:
                return False
            found = mirror.store.get(entry.key)
            if found is None:
                continue
            replace_file(path, found.data)
            self.held += len(found.data)
        return True
