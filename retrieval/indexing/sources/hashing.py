"""Files that may hold a known picture: sizes are compared first, so that few files are read beforehand."""

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import ImageError
from retrieval.images.decoding import read_bytes
from retrieval.images.file_states import FileState
from retrieval.images.shards.naming import member_of
from retrieval.indexing.reports import BuildEvent, OnBuildProgress
from retrieval.progress import ignore_progress

THREADS = 4  # a file each is in memory
END_BYTES = 4096  # of a file's beginning and of its end, which tell nearly all files of one size apart


class ListedFile(NamedTuple):
    """A file that is not known to be unchanged."""

    name: str
    uri: str
    state: FileState


@dataclass(frozen=True)
class HashedFile:
    """A file and the SHA-256 of its bytes."""

    name: str
    uri: str
    state: FileState  # when these bytes were read
    sha256: str | None = None  # None: it was not hashed, because no known picture has its size, or it can't be read


def hash_files(
    files: Sequence[ListedFile],
    known_sizes: NDArray[np.int64],
    on_progress: OnBuildProgress = ignore_progress,
    unsized: bool = False,
) -> list[HashedFile]:
    """Hash the files that may be equal to a known picture or to each other; return all files in their order.

    Args:
        files: to look at.
        known_sizes: bytes of the files that are indexed.
        on_progress: called after every hashed file with the stage "hash".
        unsized: hash the rows of tables, too, whose size is unknown before they are decoded.
    """
    sizes = np.array([file.state[0] for file in files], np.int64)
    wanted = np.isin(sizes, known_sizes)
    wanted[_alike(files, sizes)] = True
    wanted |= unsized & np.array([file.state[0] == -1 != file.state[1] for file in files], bool)
    rows = np.flatnonzero(wanted).tolist()
    pool = ThreadPoolExecutor(THREADS, thread_name_prefix="hash")
    try:
        found = dict[int, HashedFile]()
        for done, (row, file) in enumerate(zip(rows, pool.map(hashed, (files[row] for row in rows)), strict=True), 1):
            found[row] = file
            on_progress(BuildEvent("hash", done, len(rows)))
    finally:
        pool.shutdown(cancel_futures=True)
    return [found.get(row) or HashedFile(*file) for row, file in enumerate(files)]


def hashed(file: ListedFile) -> HashedFile:
    """Read a file and return it with its SHA-256, or without one if it can't be read: the build says why."""
    try:
        data, state = read_bytes(Path(file.name))
    except ImageError:
        return HashedFile(*file)
    return HashedFile(file.name, file.uri, state, hashlib.sha256(data).hexdigest())


def _alike(files: Sequence[ListedFile], sizes: NDArray[np.int64]) -> list[int]:
    """Return the positions of files that have their size, beginning and end in common with another one."""
    values, positions, counts = np.unique(sizes, return_inverse=True, return_counts=True)
    twins = np.flatnonzero((counts[positions] > 1) & (values[positions] > 0)).tolist()
    ends = {row: (files[row].state[0], _ends(files[row].name)) for row in twins}
    count = Counter(ends.values())
    return [row for row, key in ends.items() if key[1] and count[key] > 1]


def _ends(name: str) -> bytes:
    """Return a digest of the first and last bytes of an image; none if it can't be read."""
    try:
        if member_of(name):
            data = read_bytes(Path(name))[0]
            return hashlib.blake2b(data[:END_BYTES] + data[-END_BYTES:], digest_size=16).digest()
        if not os.path.isfile(name):  # opening a FIFO would wait
            return b""
        with open(name, "rb") as file:
            digest = hashlib.blake2b(file.read(END_BYTES), digest_size=16)
            file.seek(max(0, os.fstat(file.fileno()).st_size - END_BYTES))
            digest.update(file.read(END_BYTES))
            return digest.digest()
    except (ImageError, OSError, ValueError):
        return b""
