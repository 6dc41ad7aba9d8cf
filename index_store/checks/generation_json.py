"""The checks of a generation's JSON: every name stays inside the index, every number is in its range, and rows fit.

The digest inside a generation's file finds accidents. It stops nobody, because whoever writes the file can compute it.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from index_store.checks.json_values import (
    MOST_BYTES,
    MOST_CRC,
    MOST_ID,
    MOST_ROWS,
    mapping,
    parse_json,
    sequence,
    text,
    whole_number,
)
from index_store.checks.names import component, encoder, segment_file, sha256, shown
from index_store.codecs import CODECS

MOST_SHARD_ROWS = 1 << 16
MOST_ROW_NUMBERS = 1 << 27  # of one array of one image: sixteen times as many as the largest model has
MOST_AXES = 8
MOST_SOURCES = (1 << 31) - 1  # an int32 column names them


def check_generation(body: Any) -> None:
    """Raise ValueError or KeyError unless ``body`` is the JSON of a generation that can be used without harm."""
    mapping(body, "the generation")
    whole_number(body["number"], "its number", 0, MOST_ID)
    next_id = whole_number(body["next_id"], "next_id", 0, MOST_ID + 1)
    for number in sequence(body.get("tombstones", []), "tombstones"):
        whole_number(number, "a removed id", 0, next_id - 1)
    check_unique([encoder(each) for each in sequence(body["encoders"], "encoders")], "encoders")
    check_unique([component(each, "a mode") for each in sequence(body["modes"], "modes")], "modes")
    check_sources(body["sources"])
    for name in ("created", "created_by"):
        text(body.get(name, ""), name)
    for name in ("fingerprint", "settings"):
        mapping(body[name], name)
    for mode, digest in mapping(body.get("projections", {}), "projections").items():
        component(mode, "a mode")
        sha256(digest)
    for mode, name in mapping(body.get("tensors", {}), "tensors").items():
        component(mode, "a mode")
        component(name, "stored tensors")
        if name not in body["modes"]:
            raise ValueError(f"tensors are stored under {shown(name)}, which is no mode of the index")
    whole_number(body.get("repair_of", 0), "repair_of", 0, MOST_ID)
    check_retired(body.get("retired", {}))  # may name a segment of ``segments``: a repair retires parts of one
    segments = [check_segment(record) for record in sequence(body["segments"], "segments")]
    check_unique([record["name"] for record in segments], "segments")
    _check_alike(segments)


def check_sources(sources: Any) -> Sequence[Any]:
    """Return the sources if each is a path, as in formats 1 and 2, or the JSON of a source with an id of its own."""
    ids = []
    for source in sequence(sources, "sources"):
        if isinstance(source, str):
            continue
        ids.append(whole_number(mapping(source, "a source")["id"], "a source's id", 0, MOST_SOURCES))
        for name in ("location", "beside", "was"):
            text(source.get(name, ""), name)
        if not {type(source.get(name, False)) for name in ("whole", "dropped")} <= {bool}:
            raise ValueError("a source's flags are not true or false")
        if unknown := source.keys() - {"id", "location", "beside", "was", "whole", "dropped"}:
            raise ValueError(f"a source has the unknown field {shown(min(unknown))}")
    check_unique([str(number) for number in ids], "sources")
    return sequence(sources, "sources")


def check_retired(retired: Any) -> Mapping[str, Any]:
    """Return the retired segments, whose folders will be removed, if their names and times are good."""
    for name, since in mapping(retired, "retired").items():
        component(name, "a segment")
        if datetime.fromisoformat(text(since, "the time of retirement")).tzinfo is None:
            raise ValueError(f"the time of retirement {shown(since)} has no time zone")
    return mapping(retired, "retired")


def check_segment(record: Any) -> Mapping[str, Any]:
    """Return a segment's record if it can be used without harm."""
    component(mapping(record, "a segment")["name"], "a segment")
    rows = {
        name: whole_number(record.get(name, 0), name, 0, MOST_ROWS) for name in ("rows", "rejects", "moved", "filled")
    }
    if rows["filled"] and (rows["rows"] or rows["rejects"]):
        raise ValueError(f"segment {record['name']} fills older items and has items of its own")
    files = mapping(record["files"], "files")
    for name, file in files.items():
        segment_file(name)
        whole_number(mapping(file, name)["size"], "a file's size", 0, MOST_BYTES)
        whole_number(file["crc32c"], "a checksum", 0, MOST_CRC)
    needed = {"filled.npy"} if rows["filled"] else {"items.parquet"}
    needed |= {f"{name}.parquet" for name in ("rejects", "moved") if rows[name]}
    missing = needed - files.keys()
    if missing:
        raise ValueError(f"segment {record['name']} has no record of {', '.join(sorted(missing))}")
    for mode, attention in mapping(record["attention"], "attention").items():
        component(mode, "a mode")
        _check_attention(attention)
    for mode, lost in mapping(record.get("lost", {}), "lost").items():
        component(mode, "a mode")
        for row in sequence(lost, "lost rows"):
            whole_number(row, "a lost row", 0, (rows["filled"] or rows["rows"]) - 1)
    return mapping(record, "a segment")


def check_segment_file(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the content of ``segment.json`` if it can be used without harm."""
    check_segment(body["record"])
    whole_number(body["number"], "its number", 0, MOST_ID)
    whole_number(body["next_id"], "next_id", 0, MOST_ID + 1)
    if body["base"] is not None:
        check_generation(body["base"])
    check_unique([component(name, "a segment") for name in sequence(body["names"], "names")], "segments")
    if not isinstance(body["knows_removed"], bool):
        raise ValueError("knows_removed is neither true nor false")
    if body["merges"] is not None:
        whole_number(body["merges"], "merges", 0, MOST_ROWS)
    return body


def _check_attention(record: Any) -> None:
    shapes = mapping(mapping(record, "a mode's tensors")["row_shapes"], "row_shapes")
    for name, shape in shapes.items():
        component(name, "an array")
        if not 1 <= len(sequence(shape, "a shape")) <= MOST_AXES:
            raise ValueError(f"array {name} has the shape {shown(shape)}")
        sizes = [whole_number(size, "a shape", 1, MOST_ROW_NUMBERS) for size in shape]
        if math.prod(sizes) > MOST_ROW_NUMBERS:
            raise ValueError(f"one image's {name} has {math.prod(sizes)} numbers, which no model gives")
    whole_number(record["shard_rows"], "shard_rows", 1, MOST_SHARD_ROWS)
    if not {text(name, "compressed") for name in sequence(record.get("compressed", []), "compressed")} <= shapes.keys():
        raise ValueError("compressed names an array that is not there")
    codec = CODECS.get(text(record["codec"], "codec"))  # a reader names an unknown codec when it meets its tensors
    if codec and {array.name: len(array.axes) for array in codec.arrays} != {n: len(s) for n, s in shapes.items()}:
        raise ValueError(f"codec {codec.name} has other arrays than {', '.join(shapes)}")


def _check_alike(segments: list[Mapping[str, Any]]) -> None:
    """Raise ValueError unless a mode's tensors have the same shapes and codec in every segment."""
    seen: dict[str, Any] = {}
    for mode, record in itertools.chain.from_iterable(segment["attention"].items() for segment in segments):
        kind = (record["codec"], record["row_shapes"])
        if seen.setdefault(mode, kind) != kind:
            raise ValueError(f"segments differ in the shapes or the codec of mode {mode}")


def check_unique(names: list[str], what: str) -> None:
    """Raise ValueError if a name stands twice among ``names``."""
    if len(set(names)) != len(names):
        raise ValueError(f"a name stands twice among its {what}")


def first_rows_of(modes: Mapping[str, Any], data: bytes) -> dict[str, list[Mapping[str, int]]]:
    """Return the content of ``shards.json``: by mode and shard, the CRC-32C of the first row of each array.

    Args:
        modes: the tensors' records of the segment, by mode.
        data: the file's bytes.

    Raises:
        ValueError: another mode or array, or no checksum.
    """
    found = mapping(parse_json(data), "the file")
    for mode, shards in found.items():
        if mode not in modes:
            raise ValueError(f"the segment has no mode {shown(mode)}")
        for firsts in sequence(shards, "the shards"):
            if mapping(firsts, "a shard").keys() != modes[mode].row_shapes.keys():
                raise ValueError(f"a shard of mode {mode} has other arrays")
            for checksum in firsts.values():
                whole_number(checksum, "a checksum", 0, MOST_CRC)
    return dict(found)
