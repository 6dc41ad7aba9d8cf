"""Make a generation without the damage: restore what has a second copy, take out as little as possible of the rest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from index_store.checks.opening import exists_inside
from index_store.errors import UsageError
from index_store.files import atomic_write, read_regular
from index_store.garbage import retire
from index_store.generation import Generation, SegmentRecord, is_complete, read_current, read_generation
from index_store.layout import Layout, twin_of
from index_store.remote.mirror import find_mirror
from index_store.repair.damage import Damage

FIRST_FILES = ("items.parquet", "filled.npy")  # without it nobody knows whose vectors and tensors a segment holds


@dataclass(frozen=True)
class Mending:
    """The remedy for some damage; nothing is written yet."""

    generation: Generation  # without the damage
    restored: Mapping[Path, Path] = field(default_factory=dict)  # the whole copy of each damaged file
    is_new: bool = False  # whether ``generation`` must be committed


def mend(layout: Layout, generation: Generation, damages: Sequence[Damage]) -> Mending:
    """Find the remedy for ``damages``, which :func:`index_store.repair.damage.find_damage` found.

    A file with a whole second copy is restored. Other vectors, projections and rows of tensors are taken out of the
    generation; the next build or fill computes them again. A segment goes only if both lists of its items are damaged.
    """
    restored: dict[Path, Path] = {}
    segments: list[SegmentRecord] = []
    retired: list[str] = []
    for segment in generation.segments:
        here = [damage for damage in damages if damage.segment == segment.name]
        copies, kept = _mend_segment(layout, segment, here)
        restored |= copies
        segments += [] if kept is None else [kept]
        retired += [segment.name] if kept != segment else []
    gone = {damage.projection for damage in damages if damage.projection}
    retired += [layout.projection(generation.projections[mode]).stem for mode in sorted(gone)]
    whole = {mode: digest for mode, digest in generation.projections.items() if mode not in gone}
    mended = retire(replace(generation, segments=tuple(segments), projections=whole), retired)
    lost_head, copies = _mend_head(layout, damages)
    return Mending(mended, restored | copies, bool(retired) or lost_head)


def _mend_head(layout: Layout, damages: Sequence[Damage]) -> tuple[bool, dict[Path, Path]]:
    """Say whether CURRENT or both copies of the generation are damaged; else return the copy to restore, if any."""
    files = [layout.root / damage.file for damage in damages if damage.file and not damage.segment]
    others = {path: path.with_suffix(".json" if path.suffix == ".spare" else ".spare") for path in files}
    if layout.current in files or any(other in files or not exists_inside(other) for other in others.values()):
        return bool(files), {}
    return False, others


def _mend_segment(
    layout: Layout, segment: SegmentRecord, damages: Sequence[Damage]
) -> tuple[dict[Path, Path], SegmentRecord | None]:
    """Return the whole copies of damaged files, and the record without the rest; None where the segment is lost."""
    folder, damaged = layout.segment(segment.name), {damage.file for damage in damages if damage.file}
    twins = {name: twin_of(name) for name in damaged}
    restored = {name: twin for name, twin in twins.items() if twin in segment.files and twin not in damaged}
    gone = damaged - set(restored)
    if gone & set(FIRST_FILES):
        return {}, None
    lost = dict(segment.lost)
    for damage in damages:
        if damage.rows:
            lost[damage.mode] = tuple(sorted({*lost.get(damage.mode, ()), *damage.rows}))
    record = replace(
        segment,
        files={name: record for name, record in segment.files.items() if name not in gone},
        rejects=0 if "rejects.parquet" in gone else segment.rejects,
        moved=0 if "moved.parquet" in gone else segment.moved,
        lost=lost,
    )
    return {folder / name: folder / twin for name, twin in restored.items()}, record


def restore(layout: Layout, copies: Mapping[Path, Path]) -> None:
    """Put the whole copies in the place of the damaged files, durably; in an object store as well.

    Raises:
        NoSpaceError, RemoteStoreError: not all were restored; the copies are whole as before.
    """
    mirror = find_mirror(layout)
    for path, copy in copies.items():
        atomic_write(path, read_regular(copy))
        if mirror is not None:
            mirror.store.put(path.relative_to(layout.root).as_posix(), path)


def before_repair(layout: Layout) -> Generation:
    """Return the generation that the last repair started from, to commit it again.

    Raises:
        UsageError: the newest change was no repair, or a part of that generation has been deleted by now.
    """
    current = read_current(layout)
    if not current.repair_of:
        raise UsageError(f"the last change to {layout.root} was no repair, so there is nothing to undo")
    paths = (layout.generation(current.repair_of), layout.spare_generation(current.repair_of))
    path = next((path for path in paths if is_complete(layout, path)), None)
    if path is None:
        raise UsageError(f"generation {current.repair_of} of {layout.root} has lost files since, so it can't come back")
    before = read_generation(path)
    return replace(before, number=current.number, next_id=current.next_id, retired=current.retired)
