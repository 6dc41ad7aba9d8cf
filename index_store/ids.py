"""The next unused id: above every id that was ever given, also by generations that somebody went back from.

Tensors in the cache and exported vectors carry ids. An id that is given twice would give one picture another's tensors.
"""

from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path

from index_store.checks.opening import exists_inside, folders_inside, list_inside
from index_store.errors import IndexCorruptError, IndexUnreadableError
from index_store.files import reading
from index_store.generation import Generation, generation_files, next_number, read_generation
from index_store.layout import Layout
from index_store.remote.mirror import segment_name
from index_store.segment_file import read_own_record


def with_unused_ids(layout: Layout, generation: Generation) -> Generation:
    """Return ``generation`` with a next id above those of every generation and segment on the disk.

    The segment of a killed writer does not count: nobody has ever seen its ids.

    Raises:
        IndexUnreadableError: the system refused to read a later generation or a segment's record.
    """
    found = [next_id_of_later(layout, generation)]
    for path in generation_files(layout):
        if int(path.stem) < generation.number:
            with suppress(IndexUnreadableError):  # lower than ours, unless an old copy was put over this index
                found.append(_next_id(path))
    named = {segment.name for segment in generation.segments}
    for name in segment_folders(layout):
        own = None if name in named else read_own_record(layout, name)
        if own is not None and own.number > generation.number + 1:
            found.append(own.next_id)
    return replace(generation, next_id=max(found))


def next_id_of_later(layout: Layout, generation: Generation) -> int:
    """Return the next id above those of ``generation`` and of the later ones that somebody went back from."""
    later = [path for path in generation_files(layout) if int(path.stem) > generation.number]
    return max([generation.next_id, *map(_next_id, later)])


def _next_id(path: Path) -> int:
    """Return the next id of a generation's file, or of its copy; 0 if neither is whole."""
    for copy in (path, path.with_suffix(".spare")):
        try:
            return read_generation(copy).next_id
        except IndexCorruptError:
            continue
    return 0


def segment_folders(layout: Layout) -> list[str]:
    """Return the names of all segments on the disk, committed or not, in ascending order.

    Raises:
        IndexUnreadableError: this user may not list them.
    """
    folder = layout.root / "items"
    try:
        with reading(folder):
            list_inside(folder)  # a folder that this user may not list is an error
            return [path.name for path in folders_inside(folder)]
    except IndexCorruptError:
        return []


def new_segment_name(layout: Layout, number: int, part: str = "") -> str:
    """Return a name that no segment on the disk has, for a segment of the generation after ``number``.

    Args:
        layout: of the index.
        number: of the generation that grows.
        part: tells apart the segments of one commit.
    """
    stem = f"{next_number(layout, number):06d}{part}"
    name, copies = segment_name(layout, stem), count(2)
    with reading(layout.root / "attention"):
        modes = folders_inside(layout.root / "attention")
    while any(map(exists_inside, (layout.segment(name), *(mode / f"{name}.zarr" for mode in modes)))):
        name = f"{stem}-{next(copies)}"  # somebody else's segment lies there: an old copy was put over this index
    return name
