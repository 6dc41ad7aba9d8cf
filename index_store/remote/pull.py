"""Turn an index's path or URL into a local folder that shows it; for a URL, bring the mirror up to date.

A pull fetches small files that are new, checks them, and replaces the mirror's CURRENT last. So an interrupted pull
leaves the mirror showing the generation that it showed before.
"""

import hashlib
import logging
import time
from dataclasses import replace
from pathlib import Path

import google_crc32c

from index_store.checks.links import FOLDERS
from index_store.checks.opening import exists_inside, remove_file, remove_tree
from index_store.errors import IndexCorruptError, IndexLockedError, IndexNotFoundError
from index_store.files import FileRecord, atomic_write, corrupt, read_regular, writing
from index_store.garbage import clear_uncommitted
from index_store.generation import Generation, SegmentRecord, decode_current, read_generation
from index_store.layout import Layout
from index_store.locate import is_index
from index_store.lock import writer_lock
from index_store.remote.mirror import (
    CURRENT,
    Mirror,
    MirrorState,
    find_mirror,
    in_parallel,
    mirror_folder,
    trust_mirror,
)
from index_store.remote.mirror import MIRRORS_VARIABLE as MIRRORS_VARIABLE
from index_store.remote.object_store import SCHEME, StoredObject, configured_endpoint, is_url, parse_url

LOG = logging.getLogger(__name__)

WAIT_SECONDS = 60.0  # for another process that makes the same mirror
_Wanted = tuple[str, FileRecord | str]
"""A file's path below the index, and its size and CRC-32C, or its SHA-256."""


def local_root(index: str | Path, fresh: bool = False) -> Path:
    """Return the folder of the index at a path or ``s3://`` URL; there may be no index yet.

    Args:
        index: the path or URL that a user named.
        fresh: trust no file of the mirror, and fetch every small file again as it is, missing or damaged.

    Raises:
        UsageError: the URL can't name an index.
        IndexCorruptError: a file in the store is missing or damaged.
        RemoteStoreError: the store can't be reached, or obstore is not installed.
    """
    text = str(index)
    if isinstance(index, Path) and text.startswith(f"{SCHEME}:/"):
        text = text.replace(":/", "://", 1)  # pathlib turns two slashes into one
    if not is_url(text):
        return Path(index)
    url, endpoint = parse_url(text), configured_endpoint()
    layout = Layout(mirror_folder(url, endpoint))
    trust_mirror(layout.root)
    with writing(layout.root):
        layout.root.mkdir(parents=True, exist_ok=True)
    if not exists_inside(layout.remote):
        state = MirrorState(url, endpoint)
        Mirror(layout, state).save(state)
    _pull(layout, fresh)
    return layout.root


def existing_root(index: str | Path, fresh: bool = False) -> Path:
    """Return what :func:`local_root` does; IndexNotFoundError if there is no index at a URL."""
    root = local_root(index, fresh)
    if root != Path(index) and not is_index(root):
        raise IndexNotFoundError(f"there is no index at {index}", advice="make-index", index=index)
    return root


def receive_segment(layout: Layout, record: SegmentRecord) -> None:
    """Fetch the small files of a segment that another machine has sent to the object store; a folder has them already.

    Raises:
        IndexCorruptError: a file is missing or differs from ``record``.
        RemoteStoreError: the store can't be reached.
    """
    mirror = find_mirror(layout)
    if mirror is not None:
        in_parallel(lambda wanted: _fetch(mirror, wanted, fresh=False), _files_of(layout, record))


def fetch_as_it_is(mirror: Mirror, record: SegmentRecord) -> None:
    """Fetch the small files of a segment as they are in the object store, missing or damaged, to look at them.

    Raises:
        RemoteStoreError: the store can't be reached.
    """
    in_parallel(lambda wanted: _fetch(mirror, wanted, fresh=True), _files_of(mirror.layout, record))


def _pull(layout: Layout, fresh: bool) -> None:
    """Bring the mirror up to date, unless a writer holds it: then it is up to date, or the index is being made."""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        mirror = _mirror(layout)
        found = mirror.store.get(CURRENT)
        if found is not None and not fresh and _is_shown(mirror, found):
            return
        try:
            with writer_lock(layout):
                _update(_mirror(layout), found, fresh)
                return
        except IndexLockedError:
            if found is None or exists_inside(layout.current):
                return
            if time.monotonic() > deadline:
                raise
        time.sleep(0.1)


def _mirror(layout: Layout) -> Mirror:
    mirror = find_mirror(layout)
    assert mirror is not None
    return mirror


def _is_shown(mirror: Mirror, found: StoredObject) -> bool:
    state, layout = mirror.state, mirror.layout
    return (
        state.current == found.version and exists_inside(layout.current) and read_regular(layout.current) == found.data
    )


def _update(mirror: Mirror, found: StoredObject | None, fresh: bool) -> None:
    layout, store = mirror.layout, mirror.store
    if found is None:
        if next(store.list("items"), None) is not None:
            raise corrupt(store.where(CURRENT), "is missing, though there are segments")
        _forget(mirror)
        return
    if fresh:
        remove_tree(layout.root / "attention")
    generation = _fetch_generation(mirror, found, fresh)
    LOG.info("%s: bringing the mirror %s up to generation %d", store.url, layout.root, generation.number)
    state = replace(mirror.state.showing(generation, found.version), swept=False)
    if not mirror.state.segments.items() & state.segments.items():
        remove_tree(layout.cache)  # by now it may be another index, whose ids mean other images
    in_parallel(lambda wanted: _fetch(mirror, wanted, fresh), _small_files(layout, generation))
    atomic_write(layout.current, found.data)
    mirror.save(state)
    clear_uncommitted(layout, generation)


def _forget(mirror: Mirror) -> None:
    """Empty a mirror whose index is not in the store (any more)."""
    layout = mirror.layout
    if exists_inside(layout.current):
        LOG.warning("%s: the index is gone from the store; emptying the mirror %s", mirror.store.url, layout.root)
    remove_file(layout.current)
    for name in FOLDERS:
        remove_tree(layout.root / name)
    mirror.save(MirrorState(mirror.state.url, mirror.state.endpoint))


def _fetch_generation(mirror: Mirror, found: StoredObject, fresh: bool) -> Generation:
    """Fetch the generation that CURRENT names; if ``fresh``, as it is, and return its second copy if it is damaged."""
    layout, store = mirror.layout, mirror.store
    try:
        name = decode_current(found.data)
    except ValueError as error:
        raise corrupt(store.where(CURRENT), f"makes no sense ({error})") from error
    key = f"generations/{name}"
    path = layout.root / key
    spare = path.with_suffix(".spare")
    for copy in (path, spare) if fresh else (path,):
        body = store.get(f"generations/{copy.name}")
        if body is not None:
            atomic_write(copy, body.data)
        else:
            remove_file(copy)
    if not exists_inside(path) and not fresh:
        raise corrupt(store.where(key), "is missing")
    try:
        return read_generation(path)
    except IndexCorruptError:
        if not fresh or not exists_inside(spare):
            raise
        return read_generation(spare)


def _small_files(layout: Layout, generation: Generation) -> list[_Wanted]:
    """Return every file that a generation names, except tensors."""
    wanted: list[_Wanted] = [file for segment in generation.segments for file in _files_of(layout, segment)]
    digests = sorted(set(generation.projections.values()))
    return wanted + [(layout.projection(digest).relative_to(layout.root).as_posix(), digest) for digest in digests]


def _files_of(layout: Layout, segment: SegmentRecord) -> list[_Wanted]:
    folder = layout.segment(segment.name).relative_to(layout.root).as_posix()
    return [(f"{folder}/{name}", record) for name, record in segment.files.items()]


def _fetch(mirror: Mirror, wanted: _Wanted, fresh: bool) -> None:
    """Fetch one file unless the mirror has it whole; if ``fresh``, always, and accept it missing or damaged."""
    (key, expected), store = wanted, mirror.store
    path = mirror.layout.root / key
    if not fresh and exists_inside(path) and _is_as_expected(read_regular(path), expected):
        return
    found = store.get(key)
    if found is None:
        remove_file(path)
        if fresh:
            return
        raise corrupt(store.where(key), "is missing")
    if not fresh and not _is_as_expected(found.data, expected):
        raise corrupt(store.where(key), "has changed since it was written")
    atomic_write(path, found.data)


def _is_as_expected(data: bytes, expected: FileRecord | str) -> bool:
    if isinstance(expected, str):
        return hashlib.sha256(data).hexdigest() == expected
    return FileRecord(len(data), int(google_crc32c.value(data))) == expected
