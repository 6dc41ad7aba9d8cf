"""Read an index back and say, file by file, what is wrong; and take out what is damaged."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from index_store.catalog import ITEM_SCHEMA, REJECT_SCHEMA, read_ids, read_table
from index_store.codecs import all_finite
from index_store.errors import IndexCorruptError, IndexStoreError
from index_store.files import check_file, corrupt, decode_or_corrupt
from index_store.generation import Generation, SegmentRecord, read_current, read_generation
from index_store.layout import Layout
from index_store.tensors.attention import RowLocation, read_rows, row_checksum
from index_store.tensors.projections import read_projection
from index_store.vectors.storage import read_vectors


@dataclass(frozen=True)
class Damage:
    """One thing that is wrong.

    ``segment`` is the segment that is lost, or whose ``rows`` are; ``projection`` the mode that lost its own; neither:
    the head.
    """

    what: str
    segment: str = ""
    rows: tuple[int, ...] = ()  # rows of the segment; empty: all of it
    projection: str = ""


def find_damage(root: Path, on_segment: Callable[[int, int], None] = lambda done, total: None) -> Iterator[Damage]:
    """Read every byte that the current generation names, and yield what does not check out.

    ``on_segment`` is called before each segment with the number of segments done and in total.
    """
    layout = Layout(root)
    try:
        read_current(layout)
    except IndexStoreError as error:
        yield Damage(_told(error))
    generation = whole_generation(layout)
    if generation is None:
        return
    for mode, digest in generation.projections.items():
        try:
            read_projection(layout, digest)
        except IndexStoreError as error:
            yield Damage(f"{_told(error)} (mode {mode})", projection=mode)
    tombstones = frozenset(generation.tombstones)
    for number, segment in enumerate(generation.segments):
        on_segment(number, len(generation.segments))
        yield from _segment_damage(layout, segment, tombstones)


def whole_generation(layout: Layout) -> Generation | None:
    """Return the current generation; where that is damaged, the newest that reads back whole, if there is one."""
    try:
        return read_current(layout)
    except IndexStoreError:
        pass
    for path in sorted(layout.generations.glob("[0-9]*.json"), reverse=True):
        try:
            return read_generation(path)
        except IndexStoreError:
            continue
    return None


def without_damage(generation: Generation, damages: list[Damage], ids: dict[str, list[int]]) -> Generation:
    """Return ``generation`` without what is damaged: lost segments are left out, lost rows become tombstones.

    A lost projection is left out too; the next build writes it again.

    Args:
        generation: the newest whole one.
        damages: what :func:`find_damage` found.
        ids: the ids of each segment that has damaged rows, by row.
    """
    lost = {damage.segment for damage in damages if damage.segment and not damage.rows}
    projections = {damage.projection for damage in damages}
    buried = {ids[d.segment][row] for d in damages if d.rows and d.segment not in lost for row in d.rows}
    kept = tuple(segment for segment in generation.segments if segment.name not in lost)
    tombstones = tuple(sorted({*generation.tombstones, *buried}))
    whole = {mode: digest for mode, digest in generation.projections.items() if mode not in projections}
    return replace(generation, segments=kept, tombstones=tombstones, projections=whole)


def segment_ids(layout: Layout, segment: SegmentRecord) -> list[int]:
    """Return the ids behind a whole segment's vectors and tensors, by row."""
    if segment.filled:
        return [int(number) for number in read_ids(layout.filled(segment.name), segment.filled)]
    ids: list[int] = read_table(layout.items(segment.name), ITEM_SCHEMA)["id"].to_pylist()
    return ids


def _segment_damage(layout: Layout, segment: SegmentRecord, tombstones: frozenset[int]) -> Iterator[Damage]:
    try:
        for name, record in segment.files.items():
            check_file(layout.segment(segment.name) / name, record)
        ids = segment_ids(layout, segment)
        if not segment.filled:
            read_table(layout.rejects(segment.name), REJECT_SCHEMA)
        for path in sorted((layout.segment(segment.name) / "vectors").glob("*.npy")):
            read_vectors(path, segment.data_rows)
    except IndexStoreError as error:
        yield Damage(_told(error), segment.name)
        return
    live = [row for row in range(segment.data_rows) if ids[row] not in tombstones]
    for mode in segment.attention:
        yield from _attention_damage(layout, segment, mode, live)
    yield from _exchanged(layout, segment, live)


def _attention_damage(layout: Layout, segment: SegmentRecord, mode: str, live: list[int]) -> Iterator[Damage]:
    group, record = layout.attention(mode, segment.name), segment.attention[mode]
    places = [RowLocation(group, record, row) for row in live]
    messages: dict[str, list[int]] = {}
    for start in range(0, len(places), record.shard_rows):
        batch = places[start : start + record.shard_rows]
        if _problem(batch) is None:
            continue
        for place in batch:  # rare, so a second look at each row costs little
            problem = _problem([place])
            if problem is not None:
                messages.setdefault(problem, []).append(place.row)
    for message, rows in messages.items():
        yield Damage(f"{message} ({_images(len(rows))} of mode {mode})", segment.name, tuple(rows))


def _exchanged(layout: Layout, segment: SegmentRecord, live: list[int]) -> Iterator[Damage]:
    """Find whole shards that are others than were written there, by their first rows: every row's checksum matches."""
    path = layout.shards(segment.name)
    if path.name not in segment.files:  # an index of an older version
        return
    for mode, shards in decode_or_corrupt(path, json.loads).items():
        group, record = layout.attention(mode, segment.name), segment.attention[mode]
        for number, firsts in enumerate(shards):
            start = number * record.shard_rows
            try:
                found = read_rows([RowLocation(group, record, start)])
            except IndexStoreError:
                continue  # has been told, unless the row is of no item
            wrong = ", ".join(name for name, rows in found.items() if row_checksum(rows[0]) != firsts[name])
            rows = tuple(row for row in live if start <= row < start + record.shard_rows)
            if wrong and rows:
                error = corrupt(group, f"holds another shard in the place of shard {number} of {wrong}")
                yield Damage(f"{_told(error)} ({_images(len(rows))} of mode {mode})", segment.name, rows)


def _problem(places: list[RowLocation]) -> str | None:
    try:
        tensors = read_rows(places)
    except IndexStoreError as error:
        return _told(error)
    if not all(all_finite(array) for array in tensors.values()):
        return f"{places[0].group} holds numbers that are none"
    return None


def _told(error: IndexStoreError) -> str:
    """Return what is wrong, without what to do: that is for whoever reads all of it."""
    return (error.found if isinstance(error, IndexCorruptError) else "") or str(error)


def _images(count: int) -> str:
    return f"{count} image" if count == 1 else f"{count} images"
