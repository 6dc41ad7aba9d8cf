"""The sources of an index after a build, and the images that are missing under sources that the build was not given."""

import os
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from index_store.catalog import uri_of
from index_store.catalog_files.sources import NO_SOURCE, Source, Sources
from index_store.checks.opening import exists_inside
from index_store.layout import Layout
from index_store.reader import IndexReader
from retrieval.files import is_folder, is_object
from retrieval.images.discovery import IMAGE_SUFFIXES, absolute_source
from retrieval.images.file_states import is_there
from retrieval.images.shards.naming import has_shard_name, prefixes_below


def place_on_disk(root: Path) -> Path | None:
    """Return the folder that sources lie beside: the index's own, or None for an index in an object store."""
    return None if exists_inside(Layout(root).remote) else root


def sources_after(known: Sequence[Source], given: Sequence[Path], root: Path) -> tuple[Source, ...]:
    """Return the sources of the index at ``root`` once it has the images of ``given`` folders and files.

    A folder inside a known source adds none. A single file belongs to the source around it, or makes its folder one.
    """
    place = place_on_disk(root)
    sources = [source.noted(place) for source in known]
    for path in map(absolute_source, given):
        whole = is_prefix(path)
        folder = uri_of(path if whole else path.parent)
        number = Sources(sources).containing(folder)
        if number == NO_SOURCE:
            _add(sources, folder, whole, place)
        elif whole and sources[_at(sources, number)].location == folder:
            sources[_at(sources, number)] = replace(sources[_at(sources, number)], whole=True)
    return tuple(sources)


def is_prefix(path: Path) -> bool:
    """Say whether a source is a folder, or a prefix in a bucket, and not a single file or object."""
    if is_object(path):
        return not has_shard_name(path.name) and path.suffix.lower() not in IMAGE_SUFFIXES
    return path.is_dir()


def _at(sources: Sequence[Source], number: int) -> int:
    return next(at for at, source in enumerate(sources) if source.id == number)


def _add(sources: list[Source], folder: str, whole: bool, place: Path | None) -> None:
    """Add the source ``folder``; one that was dropped before comes back under its own id."""
    for at, source in enumerate(sources):
        if source.dropped and source.location == folder:
            sources[at] = replace(source, dropped=False, whole=whole).noted(place)
            return
    new = Source(1 + max((source.id for source in sources), default=-1), folder, whole=whole)
    sources.append(new.noted(place))


def without_emptied(sources: Sequence[Source], kept: Collection[int]) -> tuple[Source, ...]:
    """Drop the sources whose folder is gone and that hold no item; ``kept`` are the ids of sources that hold some."""
    return tuple(
        replace(source, dropped=True) if source.id not in kept and not is_folder(source.location) else source
        for source in sources
    )


def below(path: str | Path) -> str:
    """Return the prefix of every path below ``path``."""
    return os.path.join(uri_of(path), "")


def missing_elsewhere(reader: IndexReader, given: Sequence[Path]) -> dict[str, int]:
    """Count the items whose files are gone, by source, among the items that lie below none of the ``given`` paths."""
    searched = tuple(prefix for path in given for prefix in prefixes_below(uri_of(absolute_source(path))))
    counts: dict[str, int] = {}
    ids = reader.catalog.source_ids
    for number in np.unique(ids).tolist():
        folder = reader.sources.folders.get(number, "")
        if folder and below(folder).startswith(searched):
            continue
        rows = np.flatnonzero(ids == number)
        missing = count_missing(folder, reader.uris(rows), searched)
        if missing:
            counts[folder] = missing
    return counts


def count_missing(folder: str, uris: Sequence[str], but: tuple[str, ...] = ()) -> int:
    """Count the files of ``uris`` that are not there, except those below ``but``; all, if their ``folder`` is gone."""
    others = [uri for uri in uris if not os.path.join(uri, "").startswith(but)] if but else uris
    if folder and not is_folder(folder):
        return len(others)
    return sum(not is_there(uri) for uri in others)
