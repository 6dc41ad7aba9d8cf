"""Read every file of an index and report damage; make a generation without the damaged parts."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from index_store.catalog_files.rows import ITEM_SCHEMA, REJECT_SCHEMA, read_table
from index_store.checks.generation_json import first_rows_of
from index_store.codecs import all_finite
from index_store.errors import IndexStoreError
from index_store.files import check_file, corrupt, decode_or_corrupt
from index_store.generation import Generation, SegmentRecord, read_current, read_generation
from index_store.layout import Layout
from index_store.row_locations import read_ids
from index_store.tensors.attention import StoredRow, read_rows, row_checksum
from index_store.tensors.projections import read_projection
from index_store.tensors.shards import Shards, find_shards
from index_store.vectors.storage import check_vectors


@dataclass(frozen=True)
class Damage:
    """One damaged file or group of rows. Without ``segment`` and ``projection``, CURRENT or a generation is damaged."""

    what: str  # a sentence for people
    segment: str = ""  # the damaged segment
    rows: tuple[int, ...] = ()  # its damaged rows; empty: all of it
    projection: str = ""  # the mode whose projection is damaged


def find_damage(root: Path, on_segment: Callable[[int, int], None] = lambda done, total: None) -> Iterator[Damage]:
    """Read every byte that the current generation names, and yield the damage.

    ``on_segment`` is called before each segment with the number of segments done and in total.
    """
    layout = Layout(root)
    try:
        read_current(layout)
    except IndexStoreError as error:
        yield Damage(str(error))
    generation = whole_generation(layout)
    if generation is None:
        return
    yield from _projection_damage(layout, generation)
    tombstones, shards = frozenset(generation.tombstones), find_shards(layout)
    for number, segment in enumerate(generation.segments):
        on_segment(number, len(generation.segments))
        yield from _segment_damage(layout, shards, segment, tombstones)


def _projection_damage(layout: Layout, generation: Generation) -> Iterator[Damage]:
    for mode, digest in generation.projections.items():
        try:
            read_projection(layout, digest)
        except IndexStoreError as error:
            yield Damage(f"{error} (mode {mode})", projection=mode)


def whole_generation(layout: Layout) -> Generation | None:
    """Return the current generation; if that is damaged, the newest readable one; None if there is none."""
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
    """Return ``generation`` without damaged segments and projections; damaged rows become tombstones.

    The next build computes all of them again.

    Args:
        generation: the newest whole one.
        damages: the results of :func:`find_damage`.
        ids: by name of each segment that has damaged rows, the ids of its rows.
    """
    lost = {damage.segment for damage in damages if damage.segment and not damage.rows}
    projections = {damage.projection for damage in damages}
    removed = {ids[d.segment][row] for d in damages if d.rows and d.segment not in lost for row in d.rows}
    kept = tuple(segment for segment in generation.segments if segment.name not in lost)
    tombstones = tuple(sorted({*generation.tombstones, *removed}))
    whole = {mode: digest for mode, digest in generation.projections.items() if mode not in projections}
    return replace(generation, segments=kept, tombstones=tombstones, projections=whole)


def segment_ids(layout: Layout, segment: SegmentRecord) -> list[int]:
    """Return the ids that an undamaged segment's vectors and tensors belong to, by row."""
    if segment.filled:
        return [int(number) for number in read_ids(layout.filled(segment.name), segment.filled)]
    ids: list[int] = read_table(layout.items(segment.name), ITEM_SCHEMA, rows=segment.rows)["id"].to_pylist()
    return ids


def _segment_damage(
    layout: Layout, shards: Shards, segment: SegmentRecord, tombstones: frozenset[int]
) -> Iterator[Damage]:
    try:
        for name, record in segment.files.items():
            check_file(layout.segment(segment.name) / name, record)
        ids = segment_ids(layout, segment)
        if not segment.filled:
            read_table(layout.rejects(segment.name), REJECT_SCHEMA)
        for path in sorted((layout.segment(segment.name) / "vectors").glob("*.npy")):
            check_vectors(path, segment.data_rows)
    except IndexStoreError as error:
        yield Damage(str(error), segment.name)
        return
    live = [row for row in range(segment.data_rows) if ids[row] not in tombstones]
    for mode in segment.attention:
        yield from _attention_damage(layout, shards, segment, mode, live)
    yield from _swapped_shards(layout, shards, segment, live)


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
        yield Damage(f"{message} ({_images(len(rows))} of mode {mode})", segment.name, tuple(rows))


def _swapped_shards(layout: Layout, shards: Shards, segment: SegmentRecord, live: list[int]) -> Iterator[Damage]:
    """Find whole shards in the place of others, by the checksums of their first rows: rows alone don't show it."""
    path = layout.shards(segment.name)
    if path.name not in segment.files:  # an index of an older version
        return
    for mode, first_rows in decode_or_corrupt(path, partial(first_rows_of, segment.attention)).items():
        group, record = layout.attention(mode, segment.name), segment.attention[mode]
        for number, firsts in enumerate(first_rows):
            start = number * record.shard_rows
            try:
                found = read_rows([StoredRow(group, record, start)], shards)
            except IndexStoreError:
                continue  # reported above, unless the row belongs to no live item
            wrong = ", ".join(name for name, rows in found.items() if row_checksum(rows[0]) != firsts[name])
            rows = tuple(row for row in live if start <= row < start + record.shard_rows)
            if wrong and rows:
                error = corrupt(group, f"holds another shard in the place of shard {number} of {wrong}")
                yield Damage(f"{error} ({_images(len(rows))} of mode {mode})", segment.name, rows)


def _problem(rows: list[StoredRow], shards: Shards) -> str | None:
    try:
        tensors = read_rows(rows, shards)
    except IndexStoreError as error:
        return str(error)
    if not all(all_finite(array) for array in tensors.values()):
        return f"{rows[0].group} holds numbers that are infinite or NaN"
    return None


def _images(count: int) -> str:
    return f"{count} image" if count == 1 else f"{count} images"
