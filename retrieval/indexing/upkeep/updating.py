"""Bring an index up to date with the sources that it was built from."""

import logging
from functools import partial
from pathlib import Path

import numpy as np

from index_store.catalog_files.sources import NO_SOURCE
from index_store.reader import IndexReader
from index_store.remote.pull import existing_root
from retrieval.encoding.loaded_models import LoadModels
from retrieval.errors import UsageError
from retrieval.files import is_folder
from retrieval.images.file_states import is_there
from retrieval.images.shards.naming import member_of
from retrieval.indexing.build import build_index
from retrieval.indexing.reports import BuildReport, OnBuildProgress
from retrieval.progress import Cancellation, ignore_progress
from retrieval.settings import BuildSettings

logger = logging.getLogger(__name__)


def update_index(
    index: str | Path,
    run: BuildSettings | None = None,
    on_progress: OnBuildProgress = ignore_progress,
    cancel: Cancellation | None = None,
    load: LoadModels | None = None,
) -> BuildReport:
    """Build an index again from its own sources: new and changed images are computed, vanished ones leave.

    A folder that is not there, as on a disk that is not mounted, is passed over with its images. Of a source of which
    only some files were indexed, these files are looked at again, and no others.

    Args:
        index: its folder or object-store URL.
        run: device, batch size and the like.
        on_progress: called at every step.
        cancel: stops the build between batches.
        load: loads the models; None: as :func:`retrieval.build_index` does.

    Raises:
        UsageError: none of its sources is there.
        DiffSimError: this user may not write to the index; see also :func:`retrieval.build_index`.
    """
    reader = IndexReader(existing_root(index))
    sources = own_sources(reader)
    if not sources:
        known = ", ".join(reader.sources.places) or "none"
        raise UsageError(f"no source of {reader.layout.root} is there to update it from; its sources: {known}")
    build = build_index if load is None else partial(build_index, load=load)
    return build(sources, index, run=run, on_progress=on_progress, cancel=cancel)


def own_sources(reader: IndexReader) -> list[Path]:
    """Return the folders, files and shards that an index was built from, without those that are not there."""
    found, of_rows = [Path(folder) for folder in _whole(reader)], reader.catalog.source_ids
    partly = [source.id for source in reader.sources.all if not source.dropped and not source.whole]
    rows = np.flatnonzero(np.isin(of_rows, [NO_SOURCE, *partly]))
    named = dict.fromkeys(member.shard if (member := member_of(uri)) else uri for uri in reader.uris(rows))
    return found + [Path(name) for name in named if is_there(name)]


def _whole(reader: IndexReader) -> list[str]:
    folders = [reader.sources.folders[s.id] for s in reader.sources.all if s.whole and not s.dropped]
    for folder in folders:
        if not is_folder(folder):
            logger.warning("%s is not there, so its images stay as they are", folder)
    return [folder for folder in folders if is_folder(folder)]
