"""A generation's JSON, which commits write by hand because of its size, is that of ``dataclasses.asdict``."""

import json
from dataclasses import asdict

from index_store.files import FileRecord
from index_store.generation import (
    AttentionRecord,
    Generation,
    SegmentRecord,
    encode_generation,
    segment_to_json,
)

RECORD = SegmentRecord(
    "000001-a",
    3,
    1,
    {"items.parquet": FileRecord(10, 20), "e.npy": FileRecord(1, 2)},
    {"style": AttentionRecord({"q": (1, 2, 3)}, 16), "semantic": AttentionRecord({"h": (4,)}, 8, "hidden-int8")},
    moved=2,
    filled=0,
    lost={"style": (0, 2)},
)


def test_a_segment_is_the_same_json() -> None:
    assert segment_to_json(RECORD) == asdict(RECORD)


def test_a_generation_is_the_same_json_on_one_line() -> None:
    generation = Generation(4, {"model": {}, "encoders": {"e": {}}}, {}, (), ("e",), (), (RECORD,), next_id=9)
    data = encode_generation(generation)
    assert json.loads(data)["generation"] == json.loads(json.dumps(asdict(generation)))
    assert b"\n" not in data
