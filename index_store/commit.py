"""Commit a generation: the one step after which new segments count."""

import json
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime

from index_store.files import atomic_write, fsync_folder, writing
from index_store.generation import FORMAT_VERSION, KEPT_GENERATIONS, Generation, _digest, _encode_current
from index_store.layout import Layout
from index_store.remote.mirror import find_mirror


def commit(layout: Layout, generation: Generation, created_by: str) -> Generation:
    """Make ``generation`` the current one under the next number, durably and atomically; return it as stored.

    The caller holds the writer's lock and has flushed every file that the generation names. The commit of a mirror is
    that of its object store, so that it shows nothing that is not committed there.

    Raises:
        IndexLockedError, RemoteStoreError: see :meth:`index_store.remote.mirror.Mirror.publish`.
    """
    mirror = find_mirror(layout)
    stored = replace(
        generation,
        number=mirror.next_number(generation.number) if mirror else generation.number + 1,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        created_by=created_by,
        format_version=FORMAT_VERSION,
    )
    body = asdict(stored)
    envelope = {"sha256": _digest(body), "generation": body}
    path, text = layout.generation(stored.number), json.dumps(envelope, indent=1, ensure_ascii=False).encode()
    current = _encode_current(path.name, mirror.mark() if mirror else "")
    if mirror:
        mirror.publish(stored, text, current)
    with writing(path):
        layout.generations.mkdir(parents=True, exist_ok=True)
        fsync_folder(layout.root)  # CURRENT must not survive a power failure that the folders beside it don't
    atomic_write(path, text)
    atomic_write(layout.current, current)
    if mirror:
        mirror.settle(stored)
    _drop_old(layout, stored.number)
    return stored


def _drop_old(layout: Layout, number: int) -> None:
    """Remove old generations, and later ones that were given up; best effort, since the commit is done."""
    for path in layout.generations.glob("[0-9]*.json"):
        if path.stem.isdecimal() and not number - KEPT_GENERATIONS < int(path.stem) <= number:
            with suppress(OSError):
                path.unlink()
