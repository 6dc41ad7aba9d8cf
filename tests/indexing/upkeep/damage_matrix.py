"""Every kind of file of an index, damaged in every way, in every state of an index; and what a repair leaves of it."""

import errno
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from index_store.errors import IndexStoreError, IndexUnreadableError
from index_store.generation import Generation, read_current
from index_store.layout import Layout, vectors_file
from index_store.reader import IndexReader
from index_store.repair.damage import segment_ids
from index_store.tensors.attention import StoredRow, read_rows
from index_store.vectors.storage import read_vectors
from retrieval.indexing.build import build_index
from retrieval.indexing.fill import fill_index
from retrieval.indexing.upkeep.compacting import compact
from retrieval.indexing.upkeep.removing import remove_items
from retrieval.indexing.upkeep.repairing import repair, verify
from retrieval.search.engine import Engine
from tests.support.faults import flip_bit, place_of
from tests.support.sample_index import RUN, paint
from tests.support.stub_models import tiny_model

MODES = ["style", "instance"]
LAZY = replace(RUN, attention="lazy")

Parts = dict[tuple[str, int], bytes]
"""The bytes of an image's tensors or vector, by mode or encoder and id."""


def _build(photos: Path, index: Path, run: object = RUN, **choices: object) -> None:
    if not index.exists():
        choices = {"codec": "qkv-float16", **choices}  # three files of tensors a mode
    build_index(photos, index, model="cells", modes=MODES, run=run, **choices)  # type: ignore[arg-type]


def _search(photos: Path, index: Path) -> None:
    Engine.open(index).search(photos / "000.png", "style", exhaustive=True, k=100)


def _fresh(photos: Path, index: Path) -> None:
    _build(photos, index, codec="hidden-float16")


def _compacted(photos: Path, index: Path) -> None:
    _build(photos, index)
    compact(index, now=True)


def _filled(photos: Path, index: Path) -> None:
    _build(photos, index, LAZY)
    fill_index(index, modes=["style"], run=RUN)


def _lazy(photos: Path, index: Path) -> None:
    _build(photos, index, LAZY)
    _search(photos, index)


STATES: Mapping[str, Callable[[Path, Path], None]] = {
    "fresh": _fresh,
    "compacted": _compacted,
    "filled": _filled,
    "lazy with cache": _lazy,
}


@dataclass(frozen=True)
class Start:
    """An index before the damage, the images that it is made of, and what it holds."""

    photos: Path
    index: Path
    paths: dict[int, str]  # by id
    parts: Parts
    answers: list[dict[str, float | None]] = field(repr=False)


@contextmanager
def small_parts() -> Iterator[None]:
    """Use the tiny model and shards of two rows; flush nothing."""
    with (
        tiny_model(),
        mock.patch("index_store.tensors.attention.SHARD_ROWS", 2),
        mock.patch.object(os, "fsync", return_value=None),
    ):
        yield


def prepare(state: str, folder: Path) -> Start:
    """Make images and their index in ``state``: nine images and a reject; one was renamed, one removed."""
    photos, index = folder / "photos", folder / "x.diffsim"
    paint(photos, range(10))
    (photos / "bad.png").write_bytes(b"no image")
    STATES[state](photos, index)
    (photos / "003.png").rename(photos / "renamed.png")
    _build(photos, index)
    remove_items(index, ["007.png"])
    (photos / "007.png").unlink()
    reader = IndexReader(index)
    paths = {item.id: item.uri for item in reader.items()}
    codec = reader.generation.settings["codec"]
    _build(photos, folder / "fresh.diffsim", codec=codec)
    return Start(photos, index, paths, parts_of(reader), answers(photos, folder / "fresh.diffsim"))


def parts_of(reader: IndexReader) -> Parts:
    """Return everything that the index holds of its live images, by way of its own reader."""
    found: Parts = {}
    for mode in reader.generation.modes:
        for row in np.flatnonzero(reader.has_tensors(mode)).tolist():
            arrays = reader.attention(mode, [row])
            found[mode, int(reader.ids[row])] = b"".join(arrays[name].tobytes() for name in sorted(arrays))
    for encoder in reader.generation.encoders:
        stored = reader.stored_vectors(encoder)
        for row in np.flatnonzero(reader.has_vector(encoder)).tolist():
            found[encoder, int(reader.ids[row])] = stored[row].tobytes()
    return found


def readable_parts(
    start: Start, damaged: Path, generation: Generation, ids: Mapping[str, list[int]]
) -> set[tuple[str, int]]:
    """Return the parts whose own bytes in the index ``damaged`` are the ones that were written."""
    layout, whole = Layout(damaged), set()
    for segment in generation.segments:
        for mode, record in segment.attention.items():
            for row, number in enumerate(ids[segment.name]):
                try:
                    arrays = read_rows([StoredRow(layout.attention(mode, segment.name), record, row)])
                except IndexStoreError:
                    continue
                if b"".join(arrays[name].tobytes() for name in sorted(arrays)) == start.parts.get((mode, number)):
                    whole.add((mode, number))
        for encoder in generation.encoders:
            if vectors_file(encoder) in segment.files:
                other, path = layout.vectors(segment.name, encoder), Layout(start.index).vectors(segment.name, encoder)
                if other.exists() and other.read_bytes() == path.read_bytes():
                    rows = read_vectors(other, segment.data_rows)
                    whole |= {(encoder, ids[segment.name][row]) for row in range(len(rows))}
    return whole & set(start.parts)


def answers(photos: Path, index: Path) -> list[dict[str, float | None]]:
    """Return the exact and the first-stage scores of every image by path."""
    found = []
    for mode in MODES:
        engine = Engine.open(index)
        exact = engine.search(photos / "000.png", mode, exhaustive=True, k=100)
        coarse = engine.search(photos / "000.png", mode, rerank=False, k=100)
        found += [{r.path: r.score for r in exact}, {r.path: r.coarse_score for r in coarse}]
    return found


# --- The damage


def _zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flip(path: Path) -> None:
    """Flip a bit in the first half: in tensors it hits one row, not the index of the shard."""
    flip_bit(path, max(0, 2 * path.stat().st_size - 1))


def _swap(path: Path) -> None:
    """Let the file and its like change places, where it has one that differs."""
    like = next((other for other in _likes(path) if other.read_bytes() != path.read_bytes()), None)
    if like is not None:
        content = path.read_bytes()
        path.write_bytes(like.read_bytes())
        like.write_bytes(content)


def _likes(path: Path) -> list[Path]:
    root = next(folder for folder in path.parents if folder.suffix == ".diffsim")
    others = [other for other in sorted(root.rglob(f"*{path.suffix}")) if other.is_file() and other != path]
    same = [other for other in others if kind_of(root, other) == kind_of(root, path)]
    return same + [other for other in others if other.stat().st_size == path.stat().st_size]


def _leave(path: Path) -> None:
    """Keep the file as it is: the system refuses to read it, see :func:`_refused`."""


DAMAGES: Mapping[str, Callable[[Path], None]] = {
    "one bit": _flip,
    "truncated": _truncate,
    "zeroed": _zero,
    "deleted": Path.unlink,
    "swapped": _swap,
    "unreadable": _leave,
}


def kind_of(root: Path, path: Path) -> str:
    """Return a file's path with its numbers and digests left out."""
    name = path.relative_to(root).as_posix()
    if name.startswith("generations/"):
        return f"{'current' if path.stem == _current_stem(root) else 'older'}{path.suffix}"
    return re.sub(r"\b[0-9a-f]{12,}\b|\b\d+\b", "N", name)


def _current_stem(root: Path) -> str:
    return (root / "CURRENT").read_text().partition(".")[0]


def victims(index: Path) -> dict[str, Path]:
    """Return one file of each kind: the last one."""
    files = [path for path in sorted(index.rglob("*")) if path.is_file() and path.name != "LOCK"]
    return {kind_of(index, path): path.relative_to(index) for path in files}


# --- One case


@dataclass(frozen=True)
class Outcome:
    """What a repair left of a damaged index; every count but ``kept`` must be 0."""

    kept: int  # images
    images_lost: int  # of the images
    parts_lost: int  # tensors and vectors whose own bytes were whole
    wrong: int  # parts with other bytes than before, images with another path
    damage_left: int  # findings of verify after the repair
    other_answers: int  # searches that differ from those of a fresh index, after the next build


def examine(start: Start, victim: Path, damage: str, scratch: Path) -> Outcome:
    """Damage one file of a copy of ``start``, repair it, look at what is left, build and search."""
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(start.index, scratch, symlinks=True)
    generation = read_current(Layout(scratch))
    ids = {segment.name: segment_ids(Layout(scratch), segment, ()) or [] for segment in generation.segments}
    DAMAGES[damage](scratch / victim)
    if damage == "unreadable":
        whole = set(start.parts)
        _refused(scratch, victim)
    else:
        whole = readable_parts(start, scratch, generation, ids)
        repair(scratch)
    left = len(verify(scratch))
    reader = IndexReader(scratch)
    paths, parts = {item.id: item.uri for item in reader.items()}, parts_of(reader)
    wrong = sum(start.paths.get(number) != path for number, path in paths.items())
    wrong += sum(start.parts.get(key) != value for key, value in parts.items())
    _build(start.photos, scratch)
    again = answers(start.photos, scratch)
    return Outcome(
        kept=len(paths),
        images_lost=len(start.paths.keys() - paths.keys()),
        parts_lost=len(whole - parts.keys()),
        wrong=wrong,
        damage_left=left,
        other_answers=sum(not _alike(found, expected) for found, expected in zip(again, start.answers, strict=True)),
    )


def _refused(index: Path, victim: Path) -> None:
    """Repair while the system refuses to read a file: nothing may change."""
    before = sorted(path for path in index.rglob("*") if path.name != "LOCK")
    own_open = os.open

    def refusing(path: Any, *arguments: Any, **options: Any) -> int:
        if place_of(path, options.get("dir_fd")) == index / victim:
            raise OSError(errno.EIO, os.strerror(errno.EIO), os.fspath(path))
        return own_open(path, *arguments, **options)

    with mock.patch.object(os, "open", refusing):
        try:
            answer = str([damage.what for damage in repair(index).damages])
        except IndexUnreadableError as error:
            answer = str(error)
    assert answer == "[]" or "nothing was taken out" in answer, f"{victim} can't be read, which is no damage"
    assert sorted(path for path in index.rglob("*") if path.name != "LOCK") == before


def _alike(found: Mapping[str, float | None], expected: Mapping[str, float | None]) -> bool:
    close = {path: None if score is None else pytest.approx(score, abs=1e-6) for path, score in expected.items()}
    return dict(found) == close
