"""``segment.json``: a segment's own record, and the generation that it was written for.

The generation file holds the same record. Should that file and its copy be lost, :mod:`index_store.repair.rebuilding`
puts a generation together from the segments. The file is ``{"sha256": ..., "segment": {...}}``.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from index_store.checks.generation_json import check_segment_file
from index_store.checks.json_values import mapping, parse_json
from index_store.errors import IndexCorruptError, IndexNotFoundError
from index_store.files import FileRecord, atomic_write, decode_or_corrupt
from index_store.generation import (
    Generation,
    SegmentRecord,
    as_json,
    digest_of,
    generation_from_json,
    next_number,
    read_current,
    segment_from_json,
)
from index_store.layout import SEGMENT_FILE, SPARE, Layout, twin_of


@dataclass(frozen=True)
class SegmentFile:
    """The content of ``segment.json``."""

    record: SegmentRecord  # without segment.json itself
    number: int  # of the generation that the segment was written for
    next_id: int  # above the ids of its items
    base: Generation | None  # the generation before, without its segments' records; None: there was none
    names: tuple[str, ...] = ()  # of the segments of ``base``
    knows_removed: bool = False  # whether ``base`` has its tombstones; many would outweigh the segment
    merges: int | None = None  # a compaction writes segments of this many items together, which replace ``names``


def describe_segment(layout: Layout, record: SegmentRecord, next_id: int, merges: int | None = None) -> SegmentFile:
    """Return what the segment of ``record`` says about itself before it is committed."""
    try:
        base = read_current(layout)
    except (IndexNotFoundError, IndexCorruptError):
        return SegmentFile(record, next_number(layout, 0), next_id, None)
    knows_removed = len(base.tombstones) <= max(record.rows, record.filled)
    head = replace(base, segments=(), tombstones=base.tombstones if knows_removed else (), retired={})
    names = tuple(segment.name for segment in base.segments)
    return SegmentFile(record, next_number(layout, base.number), next_id, head, names, knows_removed, merges)


def encode_segment(file: SegmentFile) -> bytes:
    """Return the bytes of ``segment.json``."""
    body = as_json(file)
    return json.dumps({"sha256": digest_of(body), "segment": body}, ensure_ascii=False).encode()


def seal_segment(layout: Layout, record: SegmentRecord, next_id: int, merges: int | None = None) -> SegmentRecord:
    """Write ``segment.json`` and its copy for the index as it stands now; return the record with both files.

    A segment that waited for its commit is sealed again, because other segments were committed meanwhile.

    Args:
        layout: of the index.
        record: of the segment's other files; those of an older seal are replaced.
        next_id: above the ids of the segment's items.
        merges: see :class:`SegmentFile`.
    """
    names = (SEGMENT_FILE, twin_of(SEGMENT_FILE))
    bare = replace(record, files={name: file for name, file in record.files.items() if name not in names})
    own = encode_segment(describe_segment(layout, bare, next_id, merges))
    for name in names:
        atomic_write(layout.segment(record.name) / name, own)
    described = dict.fromkeys(names, FileRecord.of(layout.own_record(record.name)))
    return replace(bare, files=dict(sorted({**bare.files, **described}.items())))


def decode_segment(data: bytes) -> SegmentFile:
    """Return what :func:`encode_segment` encoded; ValueError, KeyError or TypeError for other bytes."""
    envelope = mapping(parse_json(data), "the file")
    body = mapping(envelope["segment"], "the segment")
    if digest_of(body) != envelope["sha256"]:
        raise ValueError("its digest does not match its content")
    values = dict(check_segment_file(body))
    values["record"] = segment_from_json(values["record"])
    values["base"] = None if values["base"] is None else generation_from_json(values["base"])
    values["names"] = tuple(values["names"])
    return SegmentFile(**values)


def read_own_record(layout: Layout, name: str) -> SegmentFile | None:
    """Read ``segment.json`` of the segment ``name``, or its copy; None if neither is whole.

    Raises:
        IndexUnreadableError: the system refused to read one.
    """
    path = find_own_record(layout, name)
    return None if path is None else decode_or_corrupt(path, decode_segment)


def find_own_record(layout: Layout, name: str) -> Path | None:
    """Return the path of ``segment.json`` of the segment ``name``, or of its copy; None if neither is whole."""
    own = layout.own_record(name)
    for path in (own, own.parent / SPARE / own.name):
        try:
            found = decode_or_corrupt(path, decode_segment)
        except IndexCorruptError:
            continue
        if found.record.name == name:
            return path
    return None
