"""A mirror: the local folder through which an index in an object store is used; and a commit to that store.

The folder holds every small file under its usual name, and the file ``REMOTE``, which says where the index really
lies. Tensors stay in the store. Readers and writers work on the folder as on any index:
:mod:`index_store.tensors.shards` fetches tensors, :mod:`index_store.remote.pull` brings the folder up to date, and a
commit uploads the files that it names before it counts.

Objects are never changed, except ``CURRENT``, whose conditional replacement is the commit. Two writers can't get in
each other's way before that: the names of their segments and generations differ.
"""

import functools
import json
import operator
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from index_store.errors import IndexLockedError, RemoteStoreError
from index_store.files import atomic_write, decode_or_corrupt
from index_store.generation import KEPT_GENERATIONS
from index_store.layout import Layout
from index_store.remote.object_store import Entry, ObjectStore, StoredObject, Version, open_store

if TYPE_CHECKING:
    from index_store.generation import Generation

_T = TypeVar("_T")

TRANSFERS = 16  # at a time
GARBAGE_AGE = timedelta(hours=24)  # an upload under way, and what a search has opened, are younger
CURRENT = "CURRENT"


@dataclass(frozen=True)
class MirrorState:
    """What ``REMOTE`` holds: the store, and what of it the mirror shows."""

    url: str
    endpoint: str | None
    e_tag: str | None = None  # of CURRENT; None where the store has no index yet
    version: str | None = None  # likewise, where the store counts versions
    segments: Mapping[str, int] = field(default_factory=dict)  # those that the store has, and a checksum of each
    projections: tuple[str, ...] = ()  # those that the store has
    swept: bool = False  # whether garbage was cleared since the last pull

    @property
    def current(self) -> Version:
        """The version of CURRENT that the next commit is held to."""
        return Version(self.e_tag, self.version)


class Mirror:
    """The mirror at ``layout.root``."""

    def __init__(self, layout: Layout, state: MirrorState) -> None:
        self.layout, self.state = layout, state
        self.store: ObjectStore = open_store(state.url, state.endpoint)

    def note(self, **changes: Any) -> None:
        """Change what ``REMOTE`` says, durably."""
        self.state = replace(self.state, **changes)
        atomic_write(self.layout.remote, json.dumps(asdict(self.state), indent=1).encode())

    def mark(self) -> str:
        """Return what no CURRENT held before, so that an equal ETag means the same commit."""
        return secrets.token_hex(8)

    def next_number(self, number: int) -> int:
        """Return a number for a generation that nobody has used: one above ``number``, or above what is there."""
        stems = (Path(entry.key).stem for entry in self.store.list("generations"))
        return 1 + max([number, *(int(stem) for stem in stems if stem.isdecimal())])

    def publish(self, generation: "Generation", body: bytes, current: bytes) -> None:
        """Commit ``generation`` to the store: its files, then ``body``, its file, then ``current``.

        Raises:
            IndexLockedError: another writer has committed since the mirror was brought up to date. The store is as
                that writer left it, but for files that nothing names.
            RemoteStoreError: the store can't be reached; the same holds.
        """
        before = self.store.get(CURRENT)
        if (before.version if before else Version(None)) != self.state.current:
            raise self._overtaken()
        self._upload(generation)
        if self.store.create(f"generations/{generation.number:06d}.json", body) is None:
            raise self._overtaken()
        stored = self._replace_current(current)
        if stored is None:
            raise self._overtaken()
        self.state = replace(self.state, e_tag=stored.e_tag, version=stored.version, **_held(generation))

    def _replace_current(self, current: bytes) -> Version | None:
        known = self.state.current
        stored = self.store.create(CURRENT, current) if known.e_tag is None else None
        if known.e_tag is not None:
            stored = self.store.replace(CURRENT, current, known)
        if stored is None:  # the answer to a commit that did succeed may have been lost, and the request repeated
            found = self.store.get(CURRENT)
            stored = found.version if found is not None and found.data == current else None
        return stored

    def _overtaken(self) -> IndexLockedError:
        return IndexLockedError(
            f"another writer has committed to {self.store.url} meanwhile; what it wrote is intact, and what was not "
            "committed here does not count: run the same command again"
        )

    def settle(self, generation: "Generation") -> None:
        """Note a commit that was published and that the mirror shows now; its tensors need not stay here."""
        self.note()  # not before: a mirror that shows less than its REMOTE says would commit over what it lacks
        for segment in generation.segments:
            for mode in segment.attention:
                shutil.rmtree(self.layout.attention(mode, segment.name), ignore_errors=True)
        if not self.state.swept:
            with suppress(RemoteStoreError):  # the commit is done; whoever may not delete leaves it to others
                self.sweep(generation)
            self.note(swept=True)

    def _upload(self, generation: "Generation") -> None:
        keys = [path.relative_to(self.layout.root).as_posix() for path in self._new_files(generation)]
        in_parallel(lambda key: self.store.put(key, self.layout.root / key), keys)

    def _new_files(self, generation: "Generation") -> Iterator[Path]:
        for segment in generation.segments:
            if segment.name not in self.state.segments:
                trees = [self.layout.attention(mode, segment.name) for mode in segment.attention]
                for tree in (*trees, self.layout.segment(segment.name)):
                    yield from (path for path in sorted(tree.rglob("*")) if path.is_file())
        for digest in sorted(set(generation.projections.values()) - set(self.state.projections)):
            yield self.layout.projection(digest)

    def sweep(self, generation: "Generation", age: timedelta = GARBAGE_AGE) -> list[str]:
        """Delete what the current ``generation`` neither names nor retired, and old generations; return the keys.

        Only what is older than ``age`` by the store's own clock goes: younger files may be another writer's upload.
        """
        current = self.store.get(CURRENT)
        if current is None:
            return []
        named = {segment.name for segment in generation.segments} | set(generation.retired)
        projections = {self.layout.projection(digest).name for digest in generation.projections.values()}

        def is_garbage(entry: Entry) -> bool:
            folder, _, rest = entry.key.partition("/")
            if folder == "items":
                return rest.partition("/")[0] not in named
            if folder == "attention":
                return rest.split("/")[1].removesuffix(".zarr") not in named
            if folder == "projections":
                return rest not in projections
            stem = Path(rest).stem
            return not (stem.isdecimal() and generation.number - KEPT_GENERATIONS < int(stem) <= generation.number)

        folders = ("items", "attention", "projections", "generations")
        entries = (entry for folder in folders for entry in self.store.list(folder))
        garbage = [e.key for e in entries if current.modified - e.modified >= age and is_garbage(e)]
        self.store.delete(garbage)
        return garbage


def _held(generation: "Generation") -> dict[str, Any]:
    segments = {
        segment.name: functools.reduce(operator.xor, (record.crc32c for record in segment.files.values()), 0)
        for segment in generation.segments
    }
    return {"segments": segments, "projections": tuple(sorted(set(generation.projections.values())))}


def held_by(generation: "Generation", current: StoredObject) -> dict[str, Any]:
    """Return what ``REMOTE`` says once the mirror shows ``generation``, read from the store with ``current``."""
    version = {"e_tag": current.version.e_tag, "version": current.version.version}
    return {**version, **_held(generation), "swept": False}


def read_state(layout: Layout) -> MirrorState | None:
    """Read what makes ``layout.root`` a mirror; None where the index there is just itself."""
    if not layout.remote.exists():
        return None

    def decode(data: bytes) -> MirrorState:
        values = json.loads(data)
        return MirrorState(**{**values, "projections": tuple(values["projections"])})

    return decode_or_corrupt(layout.remote, decode)


def find_mirror(layout: Layout) -> Mirror | None:
    """Return the mirror at ``layout.root``; None where the index there is just itself."""
    state = read_state(layout)
    return None if state is None else Mirror(layout, state)


def index_name(root: Path) -> str:
    """Return what people call the index that is used through ``root``: its URL, or its path."""
    state = read_state(Layout(root))
    return str(root) if state is None else state.url


def held_locally(root: Path, images: int, segment_rows: int) -> int:
    """Return how many of ``images`` the local disk holds at a time: all, or in a mirror those of an open segment."""
    return min(images, segment_rows) if Layout(root).remote.exists() else images


def segment_name(layout: Layout, stem: str) -> str:
    """Return the name of a new segment; in a mirror one that no other writer can think of."""
    return f"{stem}-{secrets.token_hex(4)}" if layout.remote.exists() else stem


def in_parallel(do: Callable[[_T], None], tasks: Iterable[_T]) -> None:
    """Do every task, several at a time; the first error is raised."""
    with ThreadPoolExecutor(TRANSFERS) as pool:
        for _ in pool.map(do, tasks):
            pass
