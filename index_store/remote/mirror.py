"""A mirror: the local folder through which an index in an object store is used.

The folder holds every small file under its usual name, and the file ``REMOTE``, which names the object store. Tensors
stay in the store. Readers and writers use the folder like any index: :mod:`index_store.tensors.shards` fetches tensors,
:mod:`index_store.remote.pull` brings the folder up to date, and :mod:`index_store.commit` uploads the new files.

Objects are never changed, except ``CURRENT``, whose conditional replacement is the commit. Before that two writers
can't disturb each other, because the names of their segments and generations differ.
"""

import functools
import hashlib
import json
import operator
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from index_store.checks.json_values import MOST_CRC, mapping, parse_json, sequence, text, whole_number
from index_store.checks.names import component, sha256
from index_store.checks.opening import exists_inside, remove_tree
from index_store.errors import IndexStoreError
from index_store.files import atomic_write, decode_or_corrupt, files_below
from index_store.generation import Generation, SegmentRecord
from index_store.layout import Layout
from index_store.remote.object_store import (
    ObjectStore,
    Version,
    open_store,
    parse_url,
    plain_endpoint,
)

_Task = TypeVar("_Task")

TRANSFERS = 16  # at a time
CURRENT = "CURRENT"
MIRRORS_VARIABLE = "DIFFSIM_MIRRORS"
_OPENED: set[Path] = set()  # mirrors that this process found from URLs, wherever mirrors lie by now
MOST_DIGITS = 18  # of a generation's number


@dataclass(frozen=True)
class MirrorState:
    """The content of ``REMOTE``: the store, and the version of it that the mirror shows."""

    url: str
    endpoint: str | None
    e_tag: str | None = None  # of CURRENT; None: the store has no index yet
    version: str | None = None  # of CURRENT, if the store numbers versions
    segments: Mapping[str, int] = field(default_factory=dict)  # those in the store, with a checksum of each
    projections: tuple[str, ...] = ()  # those in the store
    swept: bool = False  # whether a commit has removed garbage since the last pull

    @property
    def current(self) -> Version:
        """The version of CURRENT that the next commit must still find."""
        return Version(self.e_tag, self.version)

    def showing(self, generation: Generation, current: Version) -> "MirrorState":
        """Return the state of a mirror that shows ``generation``, which the store's CURRENT of this version names."""
        return replace(
            self,
            e_tag=current.e_tag,
            version=current.version,
            segments={
                segment.name: functools.reduce(operator.xor, (record.crc32c for record in segment.files.values()), 0)
                for segment in generation.segments
            },
            projections=tuple(sorted(set(generation.projections.values()))),
        )


class Mirror:
    """The mirror at ``layout.root``: its state, its store, and the upload of new files."""

    def __init__(self, layout: Layout, state: MirrorState) -> None:
        """Open the store that ``state`` names; sends nothing yet.

        Raises:
            RemoteStoreError: see :func:`index_store.remote.object_store.open_store`.
        """
        self.layout, self.state = layout, state
        self.store: ObjectStore = open_store(state.url, state.endpoint)

    def save(self, state: MirrorState) -> None:
        """Write ``REMOTE``, durably."""
        self.state = state
        atomic_write(self.layout.remote, json.dumps(asdict(state), indent=1).encode())

    def next_number(self, number: int) -> int:
        """Return a number for a generation that nobody has used: above ``number`` and above all in the store."""
        stems = (Path(entry.key).stem for entry in self.store.list("generations"))
        return 1 + max([number, *(int(stem) for stem in stems if stem.isdecimal() and len(stem) <= MOST_DIGITS)])

    def send(self, record: SegmentRecord) -> None:
        """Upload the files of a segment that is not committed yet, and remove them here.

        The store keeps them for a day, see ``UPLOAD_GRACE`` in :mod:`index_store.garbage`.
        """
        keys = [path.relative_to(self.layout.root).as_posix() for path in self._files_of(record)]
        in_parallel(lambda key: self.store.put(key, self.layout.root / key), keys)
        trees = [self.layout.attention(mode, record.name) for mode in record.attention]
        for tree in (*trees, self.layout.segment(record.name)):
            remove_tree(tree)

    def upload(self, generation: Generation) -> None:
        """Upload every file that ``generation`` names and the store does not have yet."""
        keys = [path.relative_to(self.layout.root).as_posix() for path in self._new_files(generation)]
        in_parallel(lambda key: self.store.put(key, self.layout.root / key), keys)

    def _new_files(self, generation: Generation) -> Iterator[Path]:
        for segment in generation.segments:
            if segment.name not in self.state.segments:
                yield from self._files_of(segment)
        for digest in sorted(set(generation.projections.values()) - set(self.state.projections)):
            yield self.layout.projection(digest)

    def _files_of(self, segment: SegmentRecord) -> Iterator[Path]:
        """Yield a segment's files that lie here; tensors that a worker has sent do not."""
        trees = [self.layout.attention(mode, segment.name) for mode in segment.attention]
        for tree in (*trees, self.layout.segment(segment.name)):
            yield from sorted(Path(path) for path, _ in files_below(tree))


def read_state(layout: Layout) -> MirrorState | None:
    """Read ``REMOTE``; None if the index at ``layout`` is not a mirror."""
    if not exists_inside(layout.remote):
        return None

    state = decode_or_corrupt(layout.remote, _state_of)
    root = layout.root.resolve()
    if root not in _OPENED and root != mirror_folder(state.url, state.endpoint).resolve():
        raise IndexStoreError(
            f"{layout.root} is a mirror of {state.url} that was copied from elsewhere, so it is not used: name the "
            f"index by its URL, or set {MIRRORS_VARIABLE} to the folder that mirrors lie in"
        )
    return state


def trust_mirror(root: Path) -> None:
    """Let this process use the mirror at ``root``, because its place was found from a URL that the user named."""
    _OPENED.add(root.resolve())


def mirror_folder(url: str, endpoint: str | None) -> Path:
    """Return the folder of an index's mirror, below :func:`mirrors_folder`."""
    digest = hashlib.sha256(f"{endpoint or ''} {url}".encode()).hexdigest()
    return mirrors_folder() / f"{url.rpartition('/')[2]}-{digest[:16]}"


def mirrors_folder() -> Path:
    """Return the folder that mirrors lie in: $DIFFSIM_MIRRORS, else one in the user's cache folder."""
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get(MIRRORS_VARIABLE) or Path(caches) / "diffsim")


def _state_of(data: bytes) -> MirrorState:
    values = mapping(parse_json(data), "the file")
    for name in ("endpoint", "e_tag", "version"):
        if values[name] is not None:
            text(values[name], name)
    for segment, checksum in mapping(values["segments"], "segments").items():
        component(segment, "a segment")
        whole_number(checksum, "a checksum", 0, MOST_CRC)
    if type(values["swept"]) is not bool or parse_url(text(values["url"], "url")) != values["url"]:
        raise ValueError("it names no object store")
    if values["endpoint"] is not None and plain_endpoint(values["endpoint"]) != values["endpoint"]:
        raise ValueError("its endpoint is more than a server")
    projections = tuple(sha256(digest) for digest in sequence(values["projections"], "projections"))
    return MirrorState(**{**values, "projections": projections})


def find_mirror(layout: Layout) -> Mirror | None:
    """Return the mirror at ``layout``; None if the index there is not a mirror."""
    state = read_state(layout)
    return None if state is None else Mirror(layout, state)


def index_name(root: Path) -> str:
    """Return the name that users know the index at ``root`` by: the URL for a mirror, else the path."""
    state = read_state(Layout(root))
    return str(root) if state is None else state.url


def held_locally(root: Path, images: int, segment_rows: int) -> int:
    """Return how many of ``images`` the local disk holds at a time: all; for a mirror, those of one open segment."""
    return min(images, segment_rows) if exists_inside(Layout(root).remote) else images


def segment_name(layout: Layout, stem: str) -> str:
    """Return the name of a new segment; in a mirror it has a random part, so that writers never share a name."""
    return f"{stem}-{secrets.token_hex(4)}" if exists_inside(layout.remote) else stem


def in_parallel(do: Callable[[_Task], None], tasks: Iterable[_Task]) -> None:
    """Do every task, several at a time; raise the first error."""
    with ThreadPoolExecutor(TRANSFERS) as pool:
        for _ in pool.map(do, tasks):
            pass
