"""Generation files and CURRENT: they survive, and no damage or edit goes unnoticed."""

import json
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index_store import commit as commit_module
from index_store import generation as generation_module
from index_store.catalog_files.sources import Source
from index_store.commit import commit
from index_store.errors import IndexCorruptError, IndexIncompatibleError
from index_store.files import FileRecord
from index_store.generation import AttentionRecord, Generation, SegmentRecord, read_current
from index_store.layout import Layout
from index_store.reader import IndexReader
from tests.index_store.small_index import assert_corrupt, read_all
from tests.slices import EVERY, examples
from tests.support.faults import flip_bit

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NATURAL = st.integers(0, 2**53)
IDS = st.integers(0, 2**31 - 1)
NAME = st.from_regex(r"[0-9A-Za-z_][0-9A-Za-z_.+@=-]{0,9}", fullmatch=True)
FILE = st.builds(FileRecord, st.integers(0, 2**40), st.integers(0, 2**32 - 1))
LISTS = st.fixed_dictionaries({f"{name}.parquet": FILE for name in ("items", "rejects")})
FILES = st.builds(dict.__or__, st.dictionaries(NAME, FILE, max_size=2), LISTS)
SHAPES = st.fixed_dictionaries({"h": st.lists(st.integers(1, 64), min_size=3, max_size=3).map(tuple)})
ATTENTION = st.builds(AttentionRecord, SHAPES, st.integers(1, 256), st.just("hidden-float16"))
SEGMENT = st.builds(SegmentRecord, NAME, st.integers(0, 10**6), st.integers(0, 10**6), FILES, st.just({}))
SEGMENTS = st.builds(
    lambda segments, attention: tuple(replace(segment, attention=attention) for segment in segments),
    st.lists(SEGMENT, max_size=3, unique_by=lambda segment: segment.name),
    st.dictionaries(NAME, ATTENTION, max_size=2),  # the same in all segments
)
PATH = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
SOURCE = st.builds(Source, IDS, PATH, PATH, st.booleans(), PATH, st.booleans())
JSON = st.recursive(
    st.none() | st.booleans() | NATURAL | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
NAMES = st.lists(NAME, max_size=3, unique=True).map(tuple)
GENERATIONS = st.builds(
    Generation,
    number=st.integers(0, 10**7),
    fingerprint=st.dictionaries(TEXT, JSON, max_size=3),
    settings=st.dictionaries(TEXT, JSON, max_size=3),
    sources=st.lists(SOURCE, max_size=3, unique_by=lambda source: source.id).map(tuple),
    encoders=NAMES,
    modes=NAMES,
    segments=SEGMENTS,
    tombstones=st.lists(IDS, max_size=3).map(tuple),
    next_id=st.integers(2**31, 2**53),
    tensors=st.just({}),
).flatmap(
    lambda one: st.builds(
        lambda names: replace(one, tensors=dict(zip(one.modes, names, strict=False))),
        st.lists(st.sampled_from(one.modes), max_size=len(one.modes)) if one.modes else st.just([]),
    )
)


@settings(max_examples=examples(60), deadline=None)
@given(generation=GENERATIONS)
def test_a_generation_survives(tmp_path_factory: pytest.TempPathFactory, generation: Generation) -> None:
    layout = Layout(tmp_path_factory.mktemp("g"))
    stored = commit(layout, generation, "tests 1.0")
    assert read_current(layout) == stored
    same = replace(stored, number=generation.number, created="", created_by="")
    assert same == generation
    assert stored.number == generation.number + 1
    assert stored.created_by == "tests 1.0"


@pytest.mark.parametrize(
    "content",
    [None, "", "\n", "000007.json\n", "000003", "../generations/000003.json", "\0" * 9, "ü", "000003.json 1234\n"],
)
def test_a_lost_current_can_be_written_back_by_hand(layout: Layout, content: str | None) -> None:
    before = read_all(layout.root)
    layout.current.unlink()
    if content is not None:
        layout.current.write_text(content, encoding="utf-8")
    with pytest.raises(IndexCorruptError) as caught:
        IndexReader(layout.root)
    message = str(caught.value)
    assert str(layout.current) in message
    assert "write its name into it: 000002.json, 000003.json" in message, "not the empty one"
    for name, items in (("000003.json", 6), ("000002.json\n", 3), ("000001.json\r\n", 0)):
        layout.current.write_text(name)
        assert len(IndexReader(layout.root)) == items
    layout.current.write_text("000003.json")
    assert read_all(layout.root) == before


def test_no_flipped_bit_of_current_gives_an_older_generation(layout: Layout) -> None:
    for bit in range(8 * layout.current.stat().st_size):
        flip_bit(layout.current, bit)
        try:
            assert read_current(layout).number == 3
        except IndexCorruptError as error:
            assert str(layout.current) in str(error)  # noqa: PT017  (either is right)
        flip_bit(layout.current, bit)
    assert read_current(layout).number == 3


def test_any_damage_to_a_generation_is_found(layout: Layout) -> None:
    victim = layout.generation(3)
    whole = victim.read_bytes()
    step = 7 if EVERY else 37
    damaged = [whole[:length] for length in range(0, len(whole) - 1, step)]
    damaged += [bytes(len(whole)), whole[::-1], whole * 2, layout.generation(2).read_bytes()]
    for bit in range(0, 8 * len(whole), step):
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        damaged.append(bytes(changed))
    for content in damaged:
        victim.write_bytes(content)
        with pytest.raises(IndexCorruptError) as caught:
            read_current(layout)
        assert str(victim) in str(caught.value)
    victim.unlink()
    assert_corrupt(layout.root, victim)


@pytest.mark.parametrize(
    "content",
    ["[]", "null", "1", '"x"', "{}", '{"generation": null}', '{"generation": {"rows": 1}}', "[" * 9],
)
def test_other_json_is_no_generation(layout: Layout, content: str) -> None:
    layout.generation(3).write_text(content)
    with pytest.raises(IndexCorruptError, match=r"000003\.json"):
        read_current(layout)


@pytest.mark.parametrize("field", ["number", "next_id", "format_version", "created"])
def test_an_edited_generation_is_found(layout: Layout, field: str) -> None:
    envelope = json.loads(layout.generation(3).read_text())
    envelope["generation"][field] = 99
    layout.generation(3).write_text(json.dumps(envelope))
    with pytest.raises(IndexCorruptError, match=r"000003\.json"):
        read_current(layout)


def test_reformatting_a_generation_changes_nothing(layout: Layout) -> None:
    before = read_current(layout)
    envelope = json.loads(layout.generation(3).read_text())
    layout.generation(3).write_text(json.dumps(envelope, sort_keys=True, indent=None))
    assert read_current(layout) == before


def test_a_newer_format_asks_for_an_update(layout: Layout) -> None:
    with mock.patch.object(commit_module, "FORMAT_VERSION", 5):
        commit(layout, read_current(layout), "a later version")
    with pytest.raises(IndexIncompatibleError, match=r"format version 5.* up to 4: update"):
        IndexReader(layout.root)


def test_a_commit_while_a_reader_opens_does_no_harm(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer may replace CURRENT between any two steps of a reader."""
    own = generation_module.decode_or_corrupt
    writers = [lambda: commit(layout, read_current(layout), "tests")]

    def racing(path: Path, *arguments: object) -> object:
        if writers:
            writers.pop()()
        return own(path, *arguments)

    monkeypatch.setattr(generation_module, "decode_or_corrupt", racing)
    assert read_current(layout).number == 4
