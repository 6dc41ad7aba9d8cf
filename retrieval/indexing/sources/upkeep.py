"""List, drop and relocate the sources of an index. Every change is one atomic commit; nothing is computed."""

import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from index_store.catalog import absolute_uri
from index_store.catalog_files.sources import NO_SOURCE, Source
from index_store.commit import commit
from index_store.layout import Layout
from index_store.lock import writer_lock
from index_store.reader import IndexReader
from index_store.remote.mirror import index_name
from index_store.remote.pull import existing_root
from retrieval.errors import UsageError
from retrieval.files import is_folder
from retrieval.indexing.sources.places import below, count_missing, place_on_disk
from retrieval.version import CREATED_BY


@dataclass(frozen=True)
class SourceState:
    """One source of an index, and the state of its files."""

    location: str  # where it is today, or was last; empty: images that lie below no source
    is_there: bool
    items: int
    missing: int  # items whose file is not there
    whole: bool = True  # the folder itself was indexed; False: only some files in it


@dataclass(frozen=True)
class SourceList:
    """The sources of an index."""

    index: str
    sources: tuple[SourceState, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {"schema": 1, **asdict(self)}


@dataclass(frozen=True)
class SourceChange:
    """The result of dropping or relocating sources."""

    index: str
    items: int  # in the index now
    removed: int = 0
    relocated: tuple[SourceState, ...] = ()  # the sources at their new places

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {"schema": 1, **asdict(self)}


def list_sources(index: str | Path) -> SourceList:
    """Return the sources of an index, with their items and missing files; every item's file is looked for."""
    reader = IndexReader(existing_root(index))
    kept = [source for source in reader.sources.all if not source.dropped]
    states = [_state(reader, source.id, source.whole) for source in kept]
    loose = _state(reader, NO_SOURCE, whole=False)
    return SourceList(index_name(reader.layout.root), (*states, *([loose] if loose.items else [])))


def _state(reader: IndexReader, number: int, whole: bool) -> SourceState:
    folder = reader.sources.folders.get(number, "")
    uris = reader.uris(np.flatnonzero(reader.catalog.source_ids == number))
    return SourceState(folder, is_folder(folder), len(uris), count_missing(folder, uris), whole)


def drop_source(index: str | Path, folder: str | Path) -> SourceChange:
    """Take a source and all its items out of an index. Image files stay.

    Raises:
        UsageError: ``folder`` is not a source of the index; the message lists its sources.
    """
    layout = Layout(existing_root(index))
    with writer_lock(layout):
        reader = IndexReader(layout.root)
        named = _absolute(folder)
        dropped = {source.id for source in _sources_at(reader, folder) if _is_at(reader, source, named)}
        if not dropped:
            raise _no_source(reader, folder)
        ids = reader.ids[np.isin(reader.catalog.source_ids, list(dropped))].tolist()
        sources = tuple(replace(s, dropped=s.dropped or s.id in dropped) for s in reader.sources.all)
        tombstones = tuple(sorted({*reader.generation.tombstones, *ids}))
        commit(layout, replace(reader.generation, sources=sources, tombstones=tombstones), CREATED_BY)
    return SourceChange(index_name(layout.root), len(reader) - len(ids), removed=len(ids))


def relocate_sources(index: str | Path, old: str | Path, new: str | Path) -> SourceChange:
    """Say that the source ``old``, and every source below it, lies at ``new`` now. No file is read.

    Raises:
        UsageError: no source lies at ``old``, ``new`` is not a folder, or a source lies there already.
    """
    layout = Layout(existing_root(index))
    with writer_lock(layout):
        reader = IndexReader(layout.root)
        sources = _sources_at(reader, old)
        if not sources:
            raise _no_source(reader, old)
        if not is_folder(new):
            raise UsageError(f"{new} is not a folder: name the folder that the images lie in now")
        places = {source.id: _new_place(reader, source, _absolute(old), _absolute(new)) for source in sources}
        others = set(reader.sources.places) - {reader.sources.folders[number] for number in places}
        if taken := sorted(others & set(places.values())):
            raise UsageError(f"{taken[0]} is a source of the index already; drop one of the two first")
        moved = tuple(_moved(source, places.get(source.id), layout.root) for source in reader.sources.all)
        commit(layout, replace(reader.generation, sources=moved), CREATED_BY)
    fresh = IndexReader(layout.root)
    states = tuple(_state(fresh, source.id, source.whole) for source in sources)
    return SourceChange(index_name(layout.root), len(fresh), relocated=states)


def _moved(source: Source, place: str | None, root: Path) -> Source:
    return source if place is None else replace(source, location=place, beside="").noted(place_on_disk(root))


def _absolute(folder: str | Path) -> str:
    return absolute_uri(folder)


def _is_at(reader: IndexReader, source: Source, place: str) -> bool:
    return place in (source.location, reader.sources.folders[source.id])


def _sources_at(reader: IndexReader, folder: str | Path) -> list[Source]:
    """Return the sources that are, or were last, at ``folder`` or below it."""
    named = _absolute(folder)
    prefix = below(named)
    return [
        source
        for source in reader.sources.all
        if not source.dropped
        and any(below(place).startswith(prefix) for place in (source.location, reader.sources.folders[source.id]))
    ]


def _new_place(reader: IndexReader, source: Source, old: str, new: str) -> str:
    """Return the place of ``source``, at or below ``old``, after ``old`` became ``new``."""
    found = (source.location, reader.sources.folders[source.id])
    place = next(place for place in found if below(place).startswith(below(old)))
    rest = place.removeprefix(old).strip(os.sep)
    return os.path.join(new, rest) if rest else new


def _no_source(reader: IndexReader, folder: str | Path) -> UsageError:
    known = ", ".join(reader.sources.places) or "none"
    return UsageError(f"{folder} is not a source of {index_name(reader.layout.root)}; its sources: {known}")
