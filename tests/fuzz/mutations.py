"""Mutations of an index: accidents, and the work of somebody who computes every checksum anew."""

import json
import os
import random
import shutil
import struct
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import google_crc32c

from index_store.files import FileRecord
from index_store.generation import digest_of
from index_store.layout import Layout

HOSTILE: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 2**31, 2**63, 10**30, -(2**63), 0.5, 1e308, "", " ", "x", ".", "..", "../..", "/"),
    *("../../outside", "/etc/passwd", "a/../../b", "a\0b", "\u202e", "%2e%2e", "*", "[a-z]*", "C:\\x", "x" * 5000),
    *(
        [],
        {},
        [[]],
        {"a": {}},
        [1, 2, 3],
        ["..", ".."],
        [2**40] * 6,
        [-1, 5],
        {"../../outside": "2000-01-01T00:00:00+00:00"},
    ),
    *("2000-01-01T00:00:00+00:00", "2000-01-01", "0" * 64, "hidden-int8", "qkv-float16", "000001", "vectors/../../x"),
)


@dataclass(frozen=True)
class Mutated:
    """What was done to an index."""

    kind: str
    what: str
    authored: bool  # the checksums are right, so that the content is what its author wanted: scores may differ


def mutate(root: Path, outside: Path, rng: random.Random) -> Mutated:
    """Change the index at ``root`` in one way; links lead to the folder ``outside``."""
    kind = rng.choice(tuple(KINDS))
    what = KINDS[kind](root, outside, rng)
    return Mutated(kind, what, kind not in ("flip", "truncate", "splice", "missing"))


def _files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())


def _flip(root: Path, outside: Path, rng: random.Random) -> str:
    path = rng.choice([path for path in _files(root) if path.stat().st_size])
    path.write_bytes(_flipped(path.read_bytes(), rng))
    return str(path.relative_to(root))


def _flipped(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _truncate(root: Path, outside: Path, rng: random.Random) -> str:
    path = rng.choice(_files(root))
    os.truncate(path, rng.randrange(path.stat().st_size + 1))
    return str(path.relative_to(root))


def _spliced(data: bytes, other: bytes, rng: random.Random) -> bytes:
    at, length = rng.randrange(len(data) + 1), rng.randrange(1, 65)
    start = rng.randrange(len(other) + 1)
    return data[:at] + other[start : start + length] + data[at + rng.choice((0, length)) :]


def _splice(root: Path, outside: Path, rng: random.Random) -> str:
    path, other = rng.choice(_files(root)), rng.choice(_files(root))
    path.write_bytes(_spliced(path.read_bytes(), other.read_bytes(), rng))
    return f"{path.relative_to(root)} with {other.relative_to(root)}"


def _missing(root: Path, outside: Path, rng: random.Random) -> str:
    path = rng.choice(_files(root))
    path.unlink()
    return str(path.relative_to(root))


def _link(root: Path, outside: Path, rng: random.Random) -> str:
    """Put a link to a file or folder outside in the place of one inside, or a link where a writer might write."""
    paths = [path for path in sorted(root.rglob("*")) if not path.is_symlink()]
    planted = [
        root / ".CURRENT.tmp",
        root / "items" / "planted",
        root / "attention" / "planted",
        root / "derived" / "d-000009.faiss",
    ]
    path = rng.choice([*paths, *planted])
    is_folder = path.is_dir() if path.exists() else rng.random() < 0.7
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(outside if is_folder else outside / "notes.txt")
    return str(path.relative_to(root))


def _pipe(root: Path, outside: Path, rng: random.Random) -> str:
    path = rng.choice(_files(root))
    path.unlink()
    os.mkfifo(path)
    return str(path.relative_to(root))


def _replace_value(value: Any, rng: random.Random) -> str:
    """Replace, add or drop one value somewhere in parsed JSON; return its path."""
    path = []
    while True:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = rng.choice(keys) if keys else None
        deeper = key is not None and isinstance(value[key], dict | list) and len(value[key])
        if key is None or not deeper or rng.random() < 0.15:
            break
        path.append(str(key))
        value = value[key]
    new = rng.choice(HOSTILE)
    if rng.random() < 0.2 or key is None:
        if isinstance(value, dict):
            key = new if isinstance(new, str) else "more"
            value[key] = rng.choice(HOSTILE)
        else:
            value.append(new)
    elif rng.random() < 0.1:
        del value[key]
    elif isinstance(value[key], int) and rng.random() < 0.4:
        value[key] += rng.choice((-1, 1, 2**20, -(2**20)))
    else:
        value[key] = new
    return f"{'.'.join(path)}.{str(key)[:30]}={str(new)[:30]}"


def _current(root: Path) -> Path:
    return root / "generations" / (root / "CURRENT").read_text().split()[0]


def edit_generation(root: Path, change: Callable[[dict[str, Any]], str]) -> str:
    """Change the current generation and give it the right digest."""
    path = _current(root)
    body = json.loads(path.read_bytes())["generation"]
    what = change(body)
    text = json.dumps({"sha256": digest_of(body), "generation": body})
    path.write_text(text, "utf-8")
    return what


def _generation(root: Path, outside: Path, rng: random.Random) -> str:
    return edit_generation(root, lambda body: _replace_value(body, rng))


def _small_file(root: Path, outside: Path, rng: random.Random) -> str:
    """Change a file of a segment and the record of its size and checksum."""

    def change(body: dict[str, Any]) -> str:
        segment = rng.choice(body["segments"])
        name = rng.choice(sorted(segment["files"]))
        path = Layout(root).segment(segment["name"]) / name
        data = path.read_bytes()
        if name == "shards.json":
            value = json.loads(data)
            what = _replace_value(value, rng)
            path.write_text(json.dumps(value))
        else:
            what = name
            path.write_bytes(_flipped(data, rng) if rng.random() < 0.6 else _spliced(data, data, rng))
        segment["files"][name] = asdict(FileRecord.of(path))
        return what

    return edit_generation(root, change)


def _derived(root: Path, outside: Path, rng: random.Random) -> str:
    """Change the IVF index and the record of its checksum, or the record itself."""
    record = rng.choice(sorted((root / "derived").glob("*.json")))
    values = json.loads(record.read_bytes())
    path = root / "derived" / values["file"]
    if rng.random() < 0.7:
        data = path.read_bytes()
        head = rng.random() < 0.5  # its numbers that FAISS trusts stand at the beginning
        path.write_bytes(_flipped(data[:400], rng) + data[400:] if head else _spliced(data, data, rng))
        values |= asdict(FileRecord.of(path))
        what = path.name
    else:
        what = _replace_value(values, rng)
    record.write_text(json.dumps(values))
    return what


def _shard(root: Path, outside: Path, rng: random.Random) -> str:
    """Change the index of a shard of tensors and its checksum."""
    path = rng.choice([path for path in _files(root / "attention") if path.name == "0"])
    data = path.read_bytes()
    entries = 16 * rng.choice((1, 2, 4, 256))
    index = _flipped(data[-4 - entries : -4], rng) if len(data) > entries + 4 else data[:-4]
    body = data[: len(data) - 4 - len(index)]
    whole = data[len(data) - 4 - 16 * 256 : -4] if len(data) > 4100 else index
    index_bytes = (whole[: -len(index)] if len(whole) > len(index) else b"") + index
    path.write_bytes(body + index + int(google_crc32c.value(index_bytes)).to_bytes(4, "little"))
    return str(path.relative_to(root))


def _row(root: Path, outside: Path, rng: random.Random) -> str:
    """Change a row of tensors, or the frame that it is compressed in, and its checksum."""
    path = rng.choice([path for path in _files(root / "attention") if path.name == "0"])
    array = next(folder for folder in path.parents if (folder / "zarr.json").exists())
    rows = json.loads((array / "zarr.json").read_bytes())["chunk_grid"]["configuration"]["chunk_shape"][0]
    data = bytearray(path.read_bytes())
    entries = struct.unpack(f"<{2 * rows}Q", data[-4 - 16 * rows : -4])
    places = [place for place in zip(entries[::2], entries[1::2], strict=True) if sum(place) <= len(data)]
    if not places:
        return _flip(root, outside, rng)
    start, size = rng.choice(places)
    body = bytes(data[start : start + size - 4])
    head = rng.random() < 0.5  # where a frame states the length of what it holds
    changed = _flipped(body[:18], rng) + body[18:] if head else _flipped(body, rng)
    data[start : start + size] = changed + int(google_crc32c.value(changed)).to_bytes(4, "little")
    path.write_bytes(data)
    return str(path.relative_to(root))


def _projection(root: Path, outside: Path, rng: random.Random) -> str:
    """Change a projection and name it by its new digest."""
    import hashlib

    def change(body: dict[str, Any]) -> str:
        if not body["projections"]:
            return _replace_value(body, rng)
        mode, digest = rng.choice(sorted(body["projections"].items()))
        data = _flipped(Layout(root).projection(digest).read_bytes(), rng)
        new = hashlib.sha256(data).hexdigest()
        Layout(root).projection(new).write_bytes(data)
        body["projections"][mode] = new
        return mode

    return edit_generation(root, change)


def _cached(root: Path, outside: Path, rng: random.Random) -> str:
    """Change a file of the cache of tensors and its checksum."""
    files = _files(root / "cache")
    if not files:
        return _flip(root, outside, rng)
    path = rng.choice(files)
    body = _flipped(path.read_bytes()[:-4], rng)
    path.write_bytes(body + int(google_crc32c.value(body)).to_bytes(4, "little"))
    return str(path.relative_to(root))


def _remote(root: Path, outside: Path, rng: random.Random) -> str:
    """Claim to be the mirror of an object store."""
    state = {"url": "s3://victims-bucket/own.diffsim", "endpoint": "http://127.0.0.1:9", "e_tag": None, "version": None}
    state |= {"segments": {}, "projections": [], "swept": False}
    if rng.random() < 0.5:
        _replace_value(state, rng)
    (root / "REMOTE").write_text(json.dumps(state))
    return "REMOTE"


KINDS: dict[str, Callable[[Path, Path, random.Random], str]] = {
    "flip": _flip,
    "truncate": _truncate,
    "splice": _splice,
    "missing": _missing,
    "link": _link,
    "pipe": _pipe,
    "generation": _generation,
    "small file": _small_file,
    "derived": _derived,
    "shard index": _shard,
    "row": _row,
    "projection": _projection,
    "cache": _cached,
    "REMOTE": _remote,
}
