"""A generation: the complete, immutable description of an index at one moment (a snapshot, as in Iceberg).

``generations/000012.json`` is ``{"sha256": ..., "generation": {...}}``; the digest covers the canonical JSON of the
second part. ``CURRENT`` holds the name of one generation and the CRC-32C of that name; a user who writes the name by
hand may leave the CRC out. Replacing ``CURRENT`` is the commit, see :mod:`index_store.commit`: before it none of the
new files count, after it all of them do.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import google_crc32c

from index_store.catalog_files.sources import Source
from index_store.checks.generation_json import check_generation
from index_store.checks.json_values import mapping, parse_json
from index_store.checks.links import refuse_links
from index_store.checks.names import generation_name
from index_store.checks.opening import exists_inside, list_inside
from index_store.codecs import DEFAULT_CODEC
from index_store.errors import IndexCorruptError, IndexIncompatibleError
from index_store.files import FileRecord, corrupt, decode_or_corrupt, reading
from index_store.layout import Layout
from index_store.locate import require_index

MOST_CURRENT = 1024  # bytes
KEPT_GENERATIONS = 8  # a commit removes older files; readers hold the generation they opened in memory
FORMAT_VERSION = 4  # 3 compresses no tensors; 1 and 2 have absolute paths and no second copies; all are read


@dataclass(frozen=True)
class AttentionRecord:
    """The shape of one row, which is one item, in each of a segment's arrays of one mode."""

    row_shapes: Mapping[str, tuple[int, ...]]  # by array of the codec; q: [branches, heads, tokens, head_dim]
    shard_rows: int
    codec: str = DEFAULT_CODEC
    compressed: tuple[str, ...] = ()  # the arrays whose rows are Zstandard frames


@dataclass(frozen=True)
class SegmentRecord:
    """An immutable group of items, or of vectors and tensors that older items were missing.

    ``files`` are checked by checksum; tensors carry one checksum per row. A *filled* segment (``filled`` > 0) has no
    items: its vectors and tensors belong to ``filled`` items of older segments, in the order of ``filled.npy``.
    """

    name: str
    rows: int
    rejects: int
    files: Mapping[str, FileRecord]  # by path relative to the segment's folder
    attention: Mapping[str, AttentionRecord]  # by the name that modes share, see Generation.tensors
    moved: int = 0  # rows of moved.parquet: new catalogue rows of older items
    filled: int = 0  # rows of filled.npy
    lost: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # by mode: rows that a repair took out

    @property
    def data_rows(self) -> int:
        """Rows of the segment's vectors and tensors."""
        return self.filled or self.rows


@dataclass(frozen=True)
class Generation:
    """The content of an index. ``fingerprint`` and ``settings`` belong to the engine: this package only stores them."""

    number: int
    fingerprint: Mapping[str, Any]
    settings: Mapping[str, Any]
    sources: tuple[Source, ...]  # the folders that images were indexed from
    encoders: tuple[str, ...]
    modes: tuple[str, ...]
    segments: tuple[SegmentRecord, ...] = ()
    tombstones: tuple[int, ...] = ()  # ids of removed items
    next_id: int = 0  # ids are never used twice
    projections: Mapping[str, str] = field(default_factory=dict)  # by mode: SHA-256, where the codec needs them
    tensors: Mapping[str, str] = field(default_factory=dict)  # by mode: the mode under whose name its tensors are
    retired: Mapping[str, str] = field(default_factory=dict)  # segments no longer used, and since when (ISO 8601, UTC)
    repair_of: int = 0  # the generation that a repair made this one from; 0: it was no repair
    created: str = ""
    created_by: str = ""
    format_version: int = field(default=FORMAT_VERSION)

    def stored_as(self, mode: str) -> str:
        """Return the name under which the tensors of ``mode`` are stored: a mode's own, or that of a mode before it."""
        return self.tensors.get(mode, mode)

    @property
    def stored_names(self) -> tuple[str, ...]:
        """The names under which tensors are stored, each once, in the order of the modes."""
        return tuple(dict.fromkeys(map(self.stored_as, self.modes)))


def read_current(layout: Layout) -> Generation:
    """Read the generation that CURRENT names.

    Raises:
        IndexNotFoundError: there is no index at all.
        IndexCorruptError: CURRENT or the generation is missing or damaged; the message lists the whole generations.
        IndexIncompatibleError: written by a newer version of this software.
    """
    require_index(layout.root)
    refuse_links(layout.root)
    try:
        name = read_current_name(layout)
    except IndexCorruptError as error:
        names = [path.name for path in generation_files(layout) if is_complete(layout, path)]
        hint = f"; to go back to a whole generation, write its name into it: {', '.join(names[-3:])}" if names else ""
        raise IndexCorruptError(f"{error}{hint}", advice=error.advice, **error.facts) from error
    return read_generation(layout.generations / name)


def read_current_name(layout: Layout) -> str:
    """Return the name of the file that CURRENT names; IndexCorruptError if there is no such file and no copy of it."""
    name = decode_or_corrupt(layout.current, decode_current, MOST_CURRENT)
    known = {path.with_suffix(".json").name for path in generation_files(layout, spares=True)}
    if name not in known:
        raise corrupt(layout.current, f"does not name a generation ('{name[:40]}')")
    return name


def generation_files(layout: Layout, spares: bool = False) -> list[Path]:
    """Return the generations' files, oldest first; with ``spares`` their second copies as well.

    Raises:
        IndexUnreadableError: this user may not list them.
    """
    endings = (".json", ".spare") if spares else (".json",)
    try:
        with reading(layout.generations):
            paths = [layout.generations / name for name in list_inside(layout.generations)]
    except IndexCorruptError:  # there is no folder
        return []
    return sorted(path for path in paths if path.suffix in endings and path.stem.isdecimal())


def next_number(layout: Layout, number: int) -> int:
    """Return a number above ``number`` and above every generation on the disk, also those that were given up."""
    return 1 + max([number, *(int(path.stem) for path in generation_files(layout, spares=True))])


def is_complete(layout: Layout, path: Path) -> bool:
    """Say whether a generation is readable and not empty, and every file and group that it names still exists."""
    try:
        generation = read_generation(path)
    except (IndexCorruptError, IndexIncompatibleError):
        return False
    paths = [layout.projection(digest) for digest in generation.projections.values()]
    for segment in generation.segments:
        paths += [layout.segment(segment.name) / file for file in segment.files]
        if not exists_inside(layout.remote):  # a mirror holds no tensors
            paths += [layout.attention(mode, segment.name) for mode in segment.attention]
    return bool(generation.segments) and all(map(exists_inside, paths))


def encode_current(name: str, mark: str = "") -> bytes:
    """Return CURRENT's bytes; in an object store a random ``mark`` makes them unlike any earlier ones."""
    return f"{name} {int(google_crc32c.value((name + mark).encode())):08x} {mark}".rstrip().encode() + b"\n"


def decode_current(data: bytes) -> str:
    """Return the generation's name from CURRENT's bytes; ValueError if they are damaged."""
    name, *rest = data.decode("ascii").split() or [""]
    if rest and data.split() != encode_current(name, *rest[1:2]).split():
        raise ValueError("its checksum does not match")
    return generation_name(name)


def read_generation(path: Path) -> Generation:
    """Read and verify one generation file; errors as in :func:`read_current`."""

    def decode(data: bytes) -> Generation:
        envelope = mapping(parse_json(data), "the file")
        body = mapping(envelope["generation"], "its generation")
        if digest_of(body) != envelope["sha256"]:
            raise ValueError("its digest does not match its content")
        version = body["format_version"]
        if isinstance(version, int) and version > FORMAT_VERSION:
            raise IndexIncompatibleError(
                f"{path} has format version {version}, this software reads up to {FORMAT_VERSION}: "
                "update diffsim-retrieval"
            )
        check_generation(body)
        if path != path.with_stem(f"{body['number']:06d}"):
            raise ValueError(f"it is generation {body['number']}")
        return generation_from_json(body)

    return decode_or_corrupt(path, decode)


def encode_generation(generation: Generation) -> bytes:
    """Return the bytes of a generation's file: one line, because indenting 10,000 segments takes seconds."""
    body = as_json(replace(generation, segments=()))
    body["segments"] = [segment_to_json(record) for record in generation.segments]
    envelope = {"sha256": digest_of(body), "generation": body}
    return json.dumps(envelope, ensure_ascii=False).encode()


def as_json(record: Any) -> dict[str, Any]:
    """Return what ``dataclasses.asdict`` does, as JSON gives it back, in a quarter of its time."""
    found: dict[str, Any] = json.loads(json.dumps(record, default=vars))
    return found


def digest_of(body: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a generation's canonical JSON: sorted keys, no spaces, ASCII."""
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def generation_from_json(body: Mapping[str, Any]) -> Generation:
    """Return the generation whose ``dataclasses.asdict`` this is, as JSON gives it back."""
    values = dict(body)
    values["segments"] = tuple(segment_from_json(record) for record in values["segments"])
    values["sources"] = tuple(Source.from_json(value, number) for number, value in enumerate(values["sources"]))
    for name in ("encoders", "modes", "tombstones"):
        values[name] = tuple(values[name])
    return Generation(**values)


def _attention(record: Mapping[str, Any]) -> AttentionRecord:
    shapes = {name: tuple(shape) for name, shape in record["row_shapes"].items()}
    return AttentionRecord(shapes, record["shard_rows"], record["codec"], tuple(record.get("compressed", ())))


def segment_to_json(record: SegmentRecord) -> dict[str, Any]:
    """Return what ``dataclasses.asdict`` does, in a tenth of its time: a commit does this for every segment."""
    files = {name: dict(vars(file)) for name, file in record.files.items()}
    attention = {mode: dict(vars(values)) for mode, values in record.attention.items()}
    return {**vars(record), "files": files, "attention": attention}


def segment_from_json(record: Mapping[str, Any]) -> SegmentRecord:
    """Return the record whose ``dataclasses.asdict`` this is, as JSON gives it back."""
    return SegmentRecord(
        name=record["name"],
        rows=record["rows"],
        rejects=record["rejects"],
        files={name: FileRecord(**values) for name, values in record["files"].items()},
        attention={mode: _attention(values) for mode, values in record["attention"].items()},
        moved=record["moved"],
        filled=record.get("filled", 0),
        lost={mode: tuple(rows) for mode, rows in record.get("lost", {}).items()},
    )
