"""Read every file of an index and report damage. Only bytes that were read and are wrong count, and missing files."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from index_store.catalog_files.rows import ITEM_SCHEMA, read_table
from index_store.checks.generation_json import first_rows_of
from index_store.checks.links import refuse_links
from index_store.checks.opening import exists_inside
from index_store.codecs import all_finite
from index_store.errors import IndexCorruptError
from index_store.files import check_file, corrupt, decode_or_corrupt
from index_store.generation import Generation, SegmentRecord, read_current, read_current_name, read_generation
from index_store.layout import Layout, twin_of
from index_store.repair.rebuilding import newest_generation
from index_store.row_locations import read_ids
from index_store.tensors.attention import StoredRow, read_rows, row_checksum
from index_store.tensors.projections import read_projection
from index_store.tensors.shards import Shards, find_shards
from index_store.vectors.storage import check_vectors


@dataclass(frozen=True)
class Damage:
    """One damaged file or group of rows. Without ``segment`` and ``projection``, CURRENT or a generation is damaged."""

    what: str  # a sentence for people
    segment: str = ""  # the segment that has the damage
    file: str = ""  # the damaged file, relative to the segment's folder, or to the index where no segment is named
    mode: str = ""  # the mode of the damaged rows
    rows: tuple[int, ...] = ()  # the segment's damaged rows of this mode
    projection: str = ""  # the mode whose projection is damaged


def find_damage(root: Path, on_segment: Callable[[int, int], None] = lambda done, total: None) -> Iterator[Damage]:
    """Read every byte that the current generation names, and yield the damage.

    ``on_segment`` is called before each segment with the number of segments done and in total.

    Raises:
        IndexUnreadableError: the system refused to read a file, which may be whole.
        IndexCorruptError: a folder is a symbolic link, and nothing behind it is read.
        IndexIncompatibleError: written by a newer version of this software.
        RemoteStoreError: the object store can't be reached.
    """
    layout = Layout(root)
    refuse_links(layout.root)
    yield from _generation_damage(layout)
    generation = newest_generation(layout)
    if generation is None:
        return
    yield from _projection_damage(layout, generation)
    tombstones, shards = frozenset(generation.tombstones), find_shards(layout)
    for number, segment in enumerate(generation.segments):
        on_segment(number, len(generation.segments))
        yield from _segment_damage(layout, shards, segment, tombstones)


def _generation_damage(layout: Layout) -> Iterator[Damage]:
    """Look at CURRENT, at the generation that it names, and at the second copy, which a killed writer did not make."""
    try:
        path = layout.generations / read_current_name(layout)
    except IndexCorruptError:
        try:
            read_current(layout)
        except IndexCorruptError as error:  # its message lists the generations to go back to
            yield Damage(str(error), file=layout.current.name)
        return
    for copy in (path, path.with_suffix(".spare")):
        try:
            if copy == path or exists_inside(copy):
                read_generation(copy)
        except IndexCorruptError as error:
            yield Damage(str(error), file=copy.relative_to(layout.root).as_posix())


def _projection_damage(layout: Layout, generation: Generation) -> Iterator[Damage]:
    for mode, digest in generation.projections.items():
        try:
            read_projection(layout, digest)
        except IndexCorruptError as error:
            yield Damage(f"{error} (mode {mode})", projection=mode)


def _segment_damage(
    layout: Layout, shards: Shards, segment: SegmentRecord, tombstones: frozenset[int]
) -> Iterator[Damage]:
    damaged = set()
    for name, record in segment.files.items():
        try:
            check_file(layout.segment(segment.name) / name, record)
            if name.startswith("vectors/"):
                check_vectors(layout.segment(segment.name) / name, segment.data_rows)
        except IndexCorruptError as error:
            damaged.add(name)
            yield Damage(str(error), segment.name, name)
    ids = segment_ids(layout, segment, damaged)
    if ids is None:
        return
    for mode in segment.attention:
        lost = set(segment.lost.get(mode, ()))
        live = [row for row in range(segment.data_rows) if ids[row] not in tombstones and row not in lost]
        yield from _attention_damage(layout, shards, segment, mode, live)
        yield from _swapped_shards(layout, shards, segment, mode, live, damaged)


def segment_ids(layout: Layout, segment: SegmentRecord, damaged: Collection[str]) -> list[int] | None:
    """Return the ids that a segment's vectors and tensors belong to, by row; None if no whole file says it."""
    path = whole_copy(layout, segment, (layout.filled if segment.filled else layout.items)(segment.name), damaged)
    if path is None:
        return None
    if segment.filled:
        return [int(number) for number in read_ids(path, segment.filled)]
    ids: list[int] = read_table(path, ITEM_SCHEMA, rows=segment.rows)["id"].to_pylist()
    return ids


def whole_copy(layout: Layout, segment: SegmentRecord, path: Path, damaged: Collection[str]) -> Path | None:
    """Return ``path``, a segment's file, or its second copy if ``path`` is among the ``damaged``; None: neither."""
    for name in (path.name, twin_of(path.name)):
        if name in segment.files and name not in damaged:
            return layout.segment(segment.name) / name
    return None


def _attention_damage(
    layout: Layout, shards: Shards, segment: SegmentRecord, mode: str, live: list[int]
) -> Iterator[Damage]:
    group, record = layout.attention(mode, segment.name), segment.attention[mode]
    stored = [StoredRow(group, record, row) for row in live]
    messages: dict[str, list[int]] = {}
    for start in range(0, len(stored), record.shard_rows):
        batch = stored[start : start + record.shard_rows]
        if _problem(batch, shards) is None:
            continue
        for row in batch:  # rare, so reading each row again costs little
            problem = _problem([row], shards)
            if problem is not None:
                messages.setdefault(problem, []).append(row.row)
    for message, rows in messages.items():
        yield Damage(f"{message} ({_images(len(rows))} of mode {mode})", segment.name, mode=mode, rows=tuple(rows))


def _swapped_shards(
    layout: Layout, shards: Shards, segment: SegmentRecord, mode: str, live: list[int], damaged: Collection[str]
) -> Iterator[Damage]:
    """Find whole shards in the place of others, by the checksums of their first rows: rows alone don't show it."""
    path = whole_copy(layout, segment, layout.shards(segment.name), damaged)
    if path is None:  # an index of an older version, or a repair took the file out
        return
    group, record = layout.attention(mode, segment.name), segment.attention[mode]
    for number, firsts in enumerate(decode_or_corrupt(path, partial(first_rows_of, segment.attention))[mode]):
        start = number * record.shard_rows
        rows = tuple(row for row in live if start <= row < start + record.shard_rows)
        try:
            found = read_rows([StoredRow(group, record, start)], shards) if rows else {}
        except IndexCorruptError:
            continue  # reported above, unless the row belongs to no live item
        wrong = ", ".join(name for name, rows in found.items() if row_checksum(rows[0]) != firsts[name])
        if wrong:
            error = corrupt(group, f"holds another shard in the place of shard {number} of {wrong}")
            yield Damage(f"{error} ({_images(len(rows))} of mode {mode})", segment.name, mode=mode, rows=rows)


def _problem(rows: list[StoredRow], shards: Shards) -> str | None:
    try:
        tensors = read_rows(rows, shards)
    except IndexCorruptError as error:
        return str(error)
    if not all(all_finite(array) for array in tensors.values()):
        return f"{rows[0].group} holds numbers that are infinite or NaN"
    return None


def _images(count: int) -> str:
    return f"{count} image" if count == 1 else f"{count} images"
