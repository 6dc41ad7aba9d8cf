"""Remove segments that no generation names any more."""

import shutil
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from index_store.generation import Generation
from index_store.layout import Layout

READER_GRACE = timedelta(hours=24)  # how long a search that is under way may need what nothing names any more


def clear_uncommitted(layout: Layout, generation: Generation | None) -> None:
    """Remove what ``generation`` neither names nor retired: what a killed writer left. The caller holds the lock."""
    named = {segment.name: segment for segment in generation.segments} if generation else {}
    if generation is None:
        shutil.rmtree(layout.derived, ignore_errors=True)  # of another index: its ids mean other images
    retired = generation.retired if generation else {}
    for folder in (layout.root / "items").glob("*"):
        if folder.name not in named and folder.name not in retired:
            shutil.rmtree(folder, ignore_errors=True)
    for group in (layout.root / "attention").glob("*/*.zarr"):
        name, mode = group.name.removesuffix(".zarr"), group.parent.name
        if name not in retired and (name not in named or mode not in named[name].attention):
            shutil.rmtree(group, ignore_errors=True)
    projections = {layout.projection(digest) for digest in generation.projections.values()} if generation else set()
    for path in (layout.root / "projections").glob("*"):
        if path not in projections:
            path.unlink(missing_ok=True)


def retire(generation: Generation, names: Iterable[str]) -> Generation:
    """Return ``generation`` with segments that it no longer names kept on disk, for searches that opened them."""
    stamp = datetime.now(UTC).isoformat(timespec="seconds")
    return replace(generation, retired={**generation.retired, **dict.fromkeys(names, stamp)})


def drop_expired(layout: Layout, generation: Generation, grace: timedelta = READER_GRACE) -> Generation:
    """Remove segments that were retired longer than ``grace`` ago; a clock that went backwards removes nothing."""
    now = datetime.now(UTC)
    expired = [name for name, since in generation.retired.items() if now - datetime.fromisoformat(since) >= grace]
    for name in expired:
        remove_segment(layout, name)
    kept = {name: since for name, since in generation.retired.items() if name not in expired}
    return replace(generation, retired=kept)


def remove_segment(layout: Layout, name: str) -> None:
    """Remove every file of the segment ``name``."""
    trees: list[Path] = [layout.segment(name), *(layout.root / "attention").glob(f"*/{name}.zarr")]
    for tree in trees:
        shutil.rmtree(tree, ignore_errors=True)
