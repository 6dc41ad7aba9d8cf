"""Commit a generation: the one step after which new segments count, in a folder or in an object store."""

import logging
import secrets
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

from index_store.checks.opening import remove_tree
from index_store.errors import DiffSimError, IndexLockedError, RemoteStoreError
from index_store.files import atomic_write, fsync_folder_of, writing
from index_store.garbage import drop_old_generations, sweep_store
from index_store.generation import FORMAT_VERSION, Generation, encode_current, encode_generation, next_number
from index_store.ids import next_id_of_later
from index_store.layout import Layout
from index_store.remote.mirror import CURRENT, Mirror, find_mirror
from index_store.remote.object_store import Version

LOG = logging.getLogger(__name__)


def commit(layout: Layout, generation: Generation, created_by: str, repair_of: int = 0) -> Generation:
    """Make ``generation`` the current one under the next number, durably and atomically; return it as stored.

    The caller holds the writer's lock and has flushed every file that the generation names. A mirror publishes to its
    object store first, so that the folder never shows a generation that the store does not have.

    Neither its number nor its next id was ever given by a generation on the disk: somebody may have gone back from one.

    Args:
        layout: of the index.
        generation: the content to commit; its number is that of the generation it grew from.
        created_by: this software's name and version.
        repair_of: the number of the generation that a repair made this one from.

    Raises:
        IndexLockedError: another writer has committed to the object store since the mirror was brought up to date. The
            store stays as that writer left it, except for files that no generation names.
        RemoteStoreError: the object store can't be reached; it stays as it was in the same sense.
        NoSpaceError: the disk is full; the older generation stays current.
    """
    mirror = find_mirror(layout)
    stored = replace(
        generation,
        number=(mirror.next_number if mirror else partial(next_number, layout))(generation.number),
        next_id=next_id_of_later(layout, generation),
        repair_of=repair_of,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        created_by=created_by,
        format_version=FORMAT_VERSION,
    )
    # In a store the random word keeps any two commits' ETags apart.
    current = encode_current(layout.generation(stored.number).name, secrets.token_hex(8) if mirror else "")
    text = encode_generation(stored)
    published = _publish(mirror, stored, text, current) if mirror else None
    _replace_locally(layout, stored, text, current)
    if mirror and published:
        _settle(mirror, stored, published)
    with suppress(DiffSimError, OSError):  # the commit is done; the next writer makes up for a missing copy
        atomic_write(layout.spare_generation(stored.number), text)
    drop_old_generations(layout, stored.number)
    LOG.info("%s: committed generation %d of %d segments", layout.root, stored.number, len(stored.segments))
    return stored


def _replace_locally(layout: Layout, generation: Generation, text: bytes, current: bytes) -> None:
    """Write the generation's file ``text``, then CURRENT, durably."""
    path = layout.generation(generation.number)
    atomic_write(path, text)
    with writing(path):
        fsync_folder_of(layout.current)  # else CURRENT could survive a power failure that its folders do not
    atomic_write(layout.current, current)


def _publish(mirror: Mirror, generation: Generation, text: bytes, current: bytes) -> Version:
    """Commit to the object store: new files, then the generation's ``text``, then ``current``, which must be unchanged.

    Returns:
        The version of the new CURRENT.
    """
    before = mirror.store.get(CURRENT)
    if (before.version if before else Version(None)) != mirror.state.current:
        raise _overtaken(mirror)
    mirror.upload(generation)
    if _create(mirror, f"generations/{generation.number:06d}.json", text) is None:
        raise _overtaken(mirror)
    published = _replace_current(mirror, current)
    if published is None:
        raise _overtaken(mirror)
    return published


def _create(mirror: Mirror, key: str, data: bytes) -> Version | None:
    return mirror.store.create(key, data) or _if_written(mirror, key, data)


def _replace_current(mirror: Mirror, current: bytes) -> Version | None:
    known = mirror.state.current
    if known.e_tag is None:
        return _create(mirror, CURRENT, current)
    return mirror.store.replace(CURRENT, current, known) or _if_written(mirror, CURRENT, current)


def _if_written(mirror: Mirror, key: str, data: bytes) -> Version | None:
    """Return the version of an object that holds ``data``: a request that is repeated meets its own work."""
    found = mirror.store.get(key)
    return found.version if found is not None and found.data == data else None


def _overtaken(mirror: Mirror) -> IndexLockedError:
    LOG.warning("%s: another writer has committed first", mirror.store.url)
    return IndexLockedError(
        f"another writer has committed to {mirror.store.url} meanwhile; its work is intact, and work that was not "
        "committed here does not count: run the same command again"
    )


def _settle(mirror: Mirror, generation: Generation, published: Version) -> None:
    """Record a published commit that the mirror's CURRENT shows by now; remove local tensors and old garbage."""
    # Only now: a mirror must never claim a version it does not show, else its next commit would drop segments.
    mirror.save(mirror.state.showing(generation, published))
    with suppress(RemoteStoreError):  # a second copy, as in a folder
        mirror.store.put(f"generations/{generation.number:06d}.spare", encode_generation(generation))
    for segment in generation.segments:
        for mode in segment.attention:
            remove_tree(mirror.layout.attention(mode, segment.name))
    if not mirror.state.swept:
        with suppress(RemoteStoreError):  # the commit is done; a writer without the right to delete leaves it to others
            sweep_store(mirror.store, mirror.layout, generation)
        mirror.save(replace(mirror.state, swept=True))
