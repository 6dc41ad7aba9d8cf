"""Remove files and objects that no generation names any more."""

import logging
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from index_store.checks.links import refuse_links
from index_store.checks.opening import exists_inside, list_inside, remove_file, remove_tree, status_inside
from index_store.errors import DiffSimError, IndexCorruptError
from index_store.files import atomic_write, is_abandoned, read_regular
from index_store.generation import KEPT_GENERATIONS, Generation, generation_files, read_generation
from index_store.ids import with_unused_ids
from index_store.layout import Layout
from index_store.remote.mirror import CURRENT
from index_store.remote.object_store import ObjectStore

LOG = logging.getLogger(__name__)

READER_GRACE = timedelta(hours=24)  # how long a running search may still need a segment that was retired
UPLOAD_GRACE = timedelta(hours=24)  # younger objects may belong to another writer's upload, or to a running search


def prepare_to_write(layout: Layout, generation: Generation) -> Generation:
    """Clear the disk for a writer that goes on from ``generation``, and return the generation to grow.

    Segments that were retired a day ago go, and so do the files of killed writers. Segments of a generation that
    somebody went back from are retired: they stay for another day. The caller holds the writer's lock.
    """
    _drop_uncommitted(layout, generation)
    _complete_copies(layout, generation)
    grown = with_unused_ids(layout, drop_expired(layout, generation))
    grown = retire(grown, _given_up(layout, grown))
    clear_uncommitted(layout, grown)
    return grown


def _drop_uncommitted(layout: Layout, generation: Generation) -> None:
    """Remove generations whose writer was killed before it replaced CURRENT: no copy was made, and CURRENT is older."""
    for path in generation_files(layout):
        if int(path.stem) > generation.number and not exists_inside(path.with_suffix(".spare")):
            with suppress(OSError):
                own, current = status_inside(path), status_inside(layout.current)
                if own and current and own.st_mtime_ns >= current.st_mtime_ns:
                    remove_file(path)


def _complete_copies(layout: Layout, generation: Generation) -> None:
    """Make the current generation's second copy, if its writer was killed before it did."""
    path, spare = layout.generation(generation.number), layout.spare_generation(generation.number)
    if exists_inside(path) and not exists_inside(spare):
        with suppress(DiffSimError, OSError):  # a full disk may still hold what the writer goes on to do
            atomic_write(spare, read_regular(path))


def _given_up(layout: Layout, generation: Generation) -> list[str]:
    """Return the segments on the disk that only later generations name: somebody went back from these."""
    here = {segment.name for segment in generation.segments} | set(generation.retired)
    named: set[str] = set()
    for path in generation_files(layout):
        if int(path.stem) > generation.number:
            with suppress(IndexCorruptError):
                named |= {segment.name for segment in read_generation(path).segments}
    return sorted(name for name in named - here if exists_inside(layout.segment(name)))


def clear_uncommitted(layout: Layout, generation: Generation | None) -> None:
    """Remove the files of a killed writer: those that ``generation`` neither names nor retired.

    The caller holds the writer's lock. Without a generation there is no index yet, and everything goes.
    """
    refuse_links(layout.root)
    if generation is None:
        remove_tree(layout.derived)  # made from another index, whose ids meant other images
    _clear_segments(layout, generation)
    projections = {layout.projection(digest) for digest in generation.projections.values()} if generation else set()
    retired = generation.retired if generation else {}
    for path in _paths_in(layout.root / "projections"):
        if path not in projections and path.stem not in retired:
            remove_file(path)
    _clear_abandoned(layout)


def _clear_abandoned(layout: Layout) -> None:
    with suppress(OSError):  # a user may name the index's own folder by a link; neither call follows one below it
        for path in map(layout.root.joinpath, os.listdir(layout.root)):
            if is_abandoned(path.name, path.lstat().st_mtime):
                path.unlink(missing_ok=True)
    for path in (*_paths_in(layout.generations), *_paths_in(layout.derived)):
        with suppress(OSError):
            if (found := status_inside(path)) and is_abandoned(path.name, found.st_mtime):
                remove_file(path)


def _paths_in(folder: Path) -> list[Path]:
    """Return the paths in a folder of the index; none if it is missing or may not be listed."""
    with suppress(OSError):
        return [folder / name for name in list_inside(folder)]
    return []


def tensor_groups(layout: Layout) -> list[Path]:
    """Return the folders of tensors, of all modes and segments."""
    modes = _paths_in(layout.root / "attention")
    return [path for mode in modes for path in _paths_in(mode) if path.suffix == ".zarr"]


def _clear_segments(layout: Layout, generation: Generation | None) -> None:
    named = {segment.name: segment for segment in generation.segments} if generation else {}
    retired = generation.retired if generation else {}
    for folder in _paths_in(layout.root / "items"):
        if folder.name not in named and folder.name not in retired:
            LOG.info("%s: removing segment %s, which was never committed", layout.root, folder.name)
            remove_tree(folder)
    for group in tensor_groups(layout):
        name, mode = group.name.removesuffix(".zarr"), group.parent.name
        if name not in retired and (name not in named or mode not in named[name].attention):
            remove_tree(group)


def retire(generation: Generation, names: Iterable[str]) -> Generation:
    """Return ``generation`` with ``names`` marked as retired now: kept on disk for running searches, and for an undo.

    ``names`` are of segments, or of projection files without their ending.
    """
    stamp = datetime.now(UTC).isoformat(timespec="seconds")
    return replace(generation, retired={**generation.retired, **dict.fromkeys(names, stamp)})


def drop_expired(layout: Layout, generation: Generation, grace: timedelta = READER_GRACE) -> Generation:
    """Remove segments that were retired longer than ``grace`` ago; a clock that went backwards removes nothing."""
    now = datetime.now(UTC)
    expired = [name for name, since in generation.retired.items() if now - datetime.fromisoformat(since) >= grace]
    live = {segment.name for segment in generation.segments}
    for name in expired:
        if name in live:  # only parts of it were retired
            continue
        LOG.info("%s: removing segment %s, retired since %s", layout.root, name, generation.retired[name])
        remove_segment(layout, name)
    kept = {name: since for name, since in generation.retired.items() if name not in expired}
    return replace(generation, retired=kept)


def remove_segment(layout: Layout, name: str) -> None:
    """Remove every file of the segment ``name``."""
    trees = [layout.segment(name), *(group for group in tensor_groups(layout) if group.stem == name)]
    for tree in trees:
        remove_tree(tree)


def drop_old_generations(layout: Layout, number: int) -> None:
    """Remove generation files, and their copies, that are much older than ``number``.

    Best effort: the commit is done already.
    """
    with suppress(OSError):
        for path in _paths_in(layout.generations):
            if not _is_kept(path.stem, number):
                remove_file(path)


def _is_kept(stem: str, current: int) -> bool:
    """Say whether the generation file named ``stem`` stays; a file whose name is not a number is not ours."""
    return not stem.isdecimal() or len(stem) > 18 or current - KEPT_GENERATIONS < int(stem) <= current


def sweep_store(
    store: ObjectStore, layout: Layout, generation: Generation, grace: timedelta = UPLOAD_GRACE
) -> list[str]:
    """Delete objects that the current ``generation`` neither names nor retired, and old generations.

    Only objects older than ``grace`` by the store's own clock go.

    Returns:
        The keys of the deleted objects.
    """
    current = store.get(CURRENT)
    if current is None:
        return []
    is_named = _names_of(layout, generation)
    folders = ("items", "attention", "projections", "generations")
    entries = (entry for folder in folders for entry in store.list(folder))
    garbage = [e.key for e in entries if current.modified - e.modified >= grace and not is_named(e.key)]
    if garbage:
        LOG.info("%s: deleting %d objects that no generation names", store.url, len(garbage))
    store.delete(garbage)
    return garbage


def _names_of(layout: Layout, generation: Generation) -> Callable[[str], bool]:
    """Return a function that says whether ``generation`` needs the object of a key."""
    segments = {segment.name for segment in generation.segments} | set(generation.retired)
    projections = {layout.projection(digest).name for digest in generation.projections.values()}

    def is_named(key: str) -> bool:
        folder, _, rest = key.partition("/")
        if folder == "items":
            return rest.partition("/")[0] in segments
        if folder == "attention":
            return rest.partition("/")[2].partition("/")[0].removesuffix(".zarr") in segments
        if folder == "projections":
            return rest in projections
        stem = Path(rest).stem
        return stem.isdecimal() and len(stem) <= 18 and _is_kept(stem, generation.number)

    return is_named
