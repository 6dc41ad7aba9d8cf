"""Count what a repair takes out, before it does."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from index_store.generation import Generation, SegmentRecord
from index_store.layout import Layout, vectors_file
from index_store.repair.damage import Damage, segment_ids


@dataclass(frozen=True)
class Loss:
    """The difference between a damaged generation and the mended one."""

    items_before: int
    items: int
    incomplete: Mapping[str, int]  # images that lose their tensors or vector, by mode or encoder
    projections: tuple[str, ...]  # modes whose projection is lost


def loss_of(layout: Layout, before: Generation, after: Generation, damages: Iterable[Damage]) -> Loss:
    """Count images and their parts that ``before`` has and ``after`` does not have; ``damages`` are those of before."""
    damaged: dict[str, set[str]] = {}
    for damage in damages:
        damaged.setdefault(damage.segment, set()).add(damage.file)
    kept = {segment.name: segment for segment in after.segments}
    tombstones, unplaced = set(before.tombstones), set(before.tombstones)
    items = lost_items = 0
    incomplete: Counter[str] = Counter()
    for segment in before.segments:
        ids = segment_ids(layout, segment, damaged.get(segment.name, ()))
        if ids is None:
            lost_items += segment.rows
        else:
            items += 0 if segment.filled else len(set(ids) - tombstones)
            unplaced -= set(ids)
        incomplete += _lost_parts(segment, kept.get(segment.name), ids, tombstones, before.encoders)
    lost_items = max(0, lost_items - len(unplaced))
    gone = tuple(sorted(set(before.projections) - set(after.projections)))
    return Loss(items + lost_items, items, dict(sorted(incomplete.items())), gone)


def _lost_parts(
    segment: SegmentRecord,
    kept: SegmentRecord | None,
    ids: list[int] | None,
    removed: set[int],
    encoders: Sequence[str],
) -> Counter[str]:
    """Count by mode and encoder the live items whose tensors or vectors ``segment`` has and ``kept`` has not."""
    if kept is None:
        return Counter(dict.fromkeys(_parts(segment, encoders), segment.filled) if segment.filled else {})
    live = sum(number not in removed for number in ids or ())
    found = Counter(dict.fromkeys(_parts(segment, encoders) - _parts(kept, encoders), live))
    for mode, rows in kept.lost.items():
        found[mode] += len(set(rows) - set(segment.lost.get(mode, ())))
    return found


def _parts(segment: SegmentRecord, encoders: Sequence[str]) -> set[str]:
    """Return the modes and encoders that a segment has data of."""
    return {*segment.attention, *(name for name in encoders if vectors_file(name) in segment.files)}
