"""Find the newest generation that can be read; put it together from the segments if no copy of its file is whole."""

import logging
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from index_store.catalog_files.rows import ITEM_SCHEMA, read_table
from index_store.errors import IndexCorruptError
from index_store.files import FileRecord
from index_store.garbage import retire
from index_store.generation import (
    Generation,
    SegmentRecord,
    generation_files,
    is_complete,
    read_current_name,
    read_generation,
)
from index_store.ids import segment_folders
from index_store.layout import SEGMENT_FILE, Layout, twin_of
from index_store.segment_file import SegmentFile, find_own_record, read_own_record

LOG = logging.getLogger(__name__)


def newest_generation(layout: Layout) -> Generation | None:
    """Return the generation that CURRENT names, from its file, its copy, or the segments; None if nothing is left.

    Without CURRENT it is the newest generation that is complete. If one that can't be read any more was newer, its
    segments say so.

    Raises:
        IndexUnreadableError: the system refused to read a file.
    """
    try:
        named: int | None = int(Path(read_current_name(layout)).stem)
    except IndexCorruptError:
        named = None
    files = [path for path in generation_files(layout, spares=True) if named is None or int(path.stem) <= named]
    for path in files:
        if int(path.stem) == named and (exact := _read(path)) is not None:
            return exact
    readable = [path for path in files if _read(path) is not None]
    complete = [path for path in readable if is_complete(layout, path)]
    newest = max(complete or readable, key=lambda path: int(path.stem), default=None)
    found = None if newest is None else _read(newest)
    if found is not None and not _unreadable_since(files, readable, found.number):
        return found
    return rebuild(layout, found, named)


def _read(path: Path) -> Generation | None:
    try:
        return read_generation(path)
    except IndexCorruptError:
        return None


def _unreadable_since(files: Iterable[Path], readable: Iterable[Path], number: int) -> bool:
    """Say whether a generation after ``number`` has a file and no whole copy."""
    known = {path.stem for path in readable}
    return any(int(path.stem) > number and path.stem not in known for path in files)


def rebuild(layout: Layout, older: Generation | None, limit: int | None) -> Generation | None:
    """Put the newest generation together from the segments' own records.

    Args:
        layout: of the index.
        older: the newest generation whose file is whole.
        limit: the number of the generation that was lost; None: not known.

    Returns:
        ``older`` where no segment is newer. Images that were removed after the newest segment was written are back.
    """
    own = {name: file for name in segment_folders(layout) if (file := read_own_record(layout, name)) is not None}
    written = [file for file in own.values() if file.base is not None and (limit is None or file.number <= limit)]
    tip = max(written, key=lambda file: file.number, default=None)
    if tip is None or tip.base is None or (older is not None and older.number >= tip.number):
        return older
    together = sorted((f for f in written if f.number == tip.number), key=lambda file: file.record.name)
    records = {segment.name: segment for segment in older.segments} if older is not None else {}
    records = {name: _recorded(layout, file) for name, file in own.items()} | records
    before = [records[name] for name in tip.names if name in records]
    added = [records[file.record.name] for file in together]
    if tip.merges is not None:
        before, added = (before, []) if _is_cut_short(tip, together, before) else ([], added)
    removed = set(tip.base.tombstones if tip.knows_removed or older is None else older.tombstones)
    segments = tuple(before + added)
    others = sorted(set(own) - {segment.name for segment in segments})
    LOG.warning("%s: put generation %d together from %d segments", layout.root, tip.number, len(segments))
    rebuilt = replace(
        tip.base,
        number=tip.number,
        segments=segments,
        tombstones=tuple(sorted(removed | _replaced(layout, segments))),
        next_id=max([tip.base.next_id, *(file.next_id for file in own.values())]),
    )
    return retire(rebuilt, others)


def _is_cut_short(tip: SegmentFile, together: Iterable[SegmentFile], before: list[SegmentRecord]) -> bool:
    """Say whether a compaction was stopped before its commit, so that the segments to merge are the ones that count."""
    return sum(file.record.rows for file in together) < (tip.merges or 0) and len(before) == len(tip.names)


def _recorded(layout: Layout, file: SegmentFile) -> SegmentRecord:
    """Return the record as a generation holds it: with ``segment.json`` and its copy."""
    path = find_own_record(layout, file.record.name)
    if path is None:
        return file.record
    described = FileRecord.of(path)
    files = {**file.record.files, SEGMENT_FILE: described, twin_of(SEGMENT_FILE): described}
    return replace(file.record, files=dict(sorted(files.items())))


def _replaced(layout: Layout, segments: Iterable[SegmentRecord]) -> set[int]:
    """Return the ids of items whose file changed later: a newer item has their path."""
    newest: dict[tuple[int, str], int] = {}
    replaced: set[int] = set()
    for segment in segments:
        for place, number in _items(layout, segment):
            before = newest.get(place, number)
            replaced |= {min(before, number)} - {max(before, number)}
            newest[place] = max(before, number)
    return replaced


def _items(layout: Layout, segment: SegmentRecord) -> Iterable[tuple[tuple[int, str], int]]:
    """Return the source, path and id of a segment's items."""
    path = layout.items(segment.name)
    for copy in (path, layout.segment(segment.name) / twin_of(path.name)):
        if path.name in segment.files:
            try:
                table = read_table(copy, ITEM_SCHEMA)
            except IndexCorruptError:
                continue
            places = zip(table["source"].to_pylist(), table["path"].to_pylist(), strict=True)
            return zip(places, table["id"].to_pylist(), strict=True)
    return ()
