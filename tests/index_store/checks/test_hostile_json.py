"""A generation from elsewhere: names stay inside the index, numbers are in range, and nothing outside changes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from index_store.checks.names import encoder
from index_store.commit import commit
from index_store.errors import IndexCorruptError
from index_store.garbage import clear_uncommitted
from index_store.generation import digest_of, read_current
from index_store.layout import Layout
from index_store.reader import IndexReader
from index_store.repair.damage import find_damage
from tests.index_store.small_index import grow

Body = dict[str, Any]
OLD = "2000-01-01T00:00:00+00:00"
KEYS = (1, 2, 3, 4, 8, 10)  # places whose name is a key
BAD_NAMES = ("../../precious", "..", ".", "", "a/b", "a\\b", "a\0b", "/precious", "*", "x" * 300, 5, None)


def edit(layout: Layout, change: Callable[[Body], object]) -> Path:
    path = layout.generations / layout.current.read_text().split()[0]
    body = json.loads(path.read_bytes())["generation"]
    change(body)
    path.write_text(json.dumps({"sha256": digest_of(body), "generation": body}))
    return path


def names_of(name: Any) -> list[Callable[[Body], object]]:
    """Every place of a generation where a name becomes a part of a path."""
    return [
        lambda body: body["segments"][0].update(name=name),
        lambda body: body["segments"][0]["files"].update({name: {"size": 1, "crc32c": 1}}),
        lambda body: body["segments"][0]["files"].update({f"vectors/{name}": {"size": 1, "crc32c": 1}}),
        lambda body: body["segments"][0]["attention"].update({name: body["segments"][0]["attention"]["style"]}),
        lambda body: body["retired"].update({name: OLD}),
        lambda body: body.update(modes=[name]),
        lambda body: body.update(encoders=[name]),
        lambda body: body["projections"].update({"style": name}),
        lambda body: body["projections"].update({name: "0" * 64}),
        lambda body: body["tensors"].update({"style": name}),
        lambda body: body["tensors"].update({name: "style"}),
    ]


@pytest.mark.parametrize("name", BAD_NAMES, ids=lambda name: repr(name)[:12])
@pytest.mark.parametrize("place", range(11))
def test_a_name_that_leads_elsewhere_is_refused(layout: Layout, name: Any, place: int) -> None:
    if not isinstance(name, str) and place in KEYS:
        pytest.skip("a key of JSON is a text")
    path = edit(layout, names_of(name)[place])
    with pytest.raises(IndexCorruptError, match=path.name):
        read_current(layout)


NUMBERS: dict[str, Callable[[Body], object]] = {
    "negative rows": lambda body: body["segments"][0].update(rows=-1),
    "rows that are a text": lambda body: body["segments"][0].update(rows="3"),
    "rows that are true": lambda body: body["segments"][0].update(rows=True),
    "more rows than the file": lambda body: body["segments"][0].update(rows=4),
    "a huge shape": lambda body: body["segments"][0]["attention"]["style"]["row_shapes"].update(q=[1, 1, 2**40, 2]),
    "a shape of zeros": lambda body: body["segments"][0]["attention"]["style"]["row_shapes"].update(q=[1, 1, 0, 2]),
    "too few axes": lambda body: body["segments"][0]["attention"]["style"]["row_shapes"].update(q=[4]),
    "no shard rows": lambda body: body["segments"][0]["attention"]["style"].update(shard_rows=0),
    "another array": lambda body: body["segments"][0]["attention"]["style"]["row_shapes"].update(w=[1]),
    "shapes that differ": lambda body: [
        body["segments"][0]["attention"]["style"]["row_shapes"].update({name: [1, 1, 2, 4]}) for name in "qkv"
    ],
    "a tombstone that was never given": lambda body: body.update(tombstones=[99]),
    "a negative tombstone": lambda body: body.update(tombstones=[-1]),
    "a segment twice": lambda body: body.update(segments=[body["segments"][0]] * 2),
    "a time without a zone": lambda body: body["retired"].update(x="2000-01-01"),
    "no segments": lambda body: body.pop("segments"),
    "segments that are a text": lambda body: body.update(segments="none"),
    "half a surrogate pair": lambda body: body.update(created_by="\ud800"),
    "a file without a record": lambda body: body["segments"][0]["files"].pop("items.parquet"),
    "fills and owns": lambda body: body["segments"][0].update(filled=3),
}


@pytest.mark.parametrize("change", NUMBERS.values(), ids=NUMBERS.keys())
def test_a_value_that_makes_no_sense_is_refused(layout: Layout, change: Callable[[Body], object]) -> None:
    edit(layout, change)
    with pytest.raises(IndexCorruptError, match="the index is damaged"):
        IndexReader(layout.root)


@pytest.mark.parametrize("name", ["hf:owner/name@" + "a" * 40, f"hf:{'o' * 48}/{'n' * 47}@{'a' * 40}", "mini-style"])
def test_an_encoder_may_come_from_a_repository(name: str) -> None:
    assert encoder(name) == name


@pytest.mark.parametrize(
    "name",
    ["..", "../x", "/etc", "", "a" * 201, "a/b", "hf:../x", "hf:a/../b", "hf:a\\b", 5, None, ["clip"], "\u00e9", "-x"],
)
def test_an_encoder_whose_file_would_lie_elsewhere_is_refused(name: object) -> None:
    with pytest.raises(ValueError, match="can't be the name of an encoder"):
        encoder(name)


@pytest.mark.parametrize("text", ["[" * 100_000, "NaN", "5", "[]", '{"generation": []}', '{"generation": {}}', ""])
def test_json_of_another_kind_is_refused(layout: Layout, text: str) -> None:
    (layout.generations / layout.current.read_text().split()[0]).write_text(text)
    with pytest.raises(IndexCorruptError, match=r"\.json makes no sense"):
        read_current(layout)


@pytest.mark.parametrize("name", ["../../x.json", "..", "LOCK", "9" * 30 + ".json", "x" * 5000])
def test_current_names_a_generation_or_nothing(layout: Layout, name: str) -> None:
    layout.current.write_text(name)
    with pytest.raises(IndexCorruptError, match="CURRENT"):
        read_current(layout)


def test_ids_that_two_segments_share_are_refused(layout: Layout) -> None:
    edit(layout, lambda body: body["segments"].reverse())
    with pytest.raises(IndexCorruptError, match="out of order"):
        IndexReader(layout.root)


def test_a_commit_after_a_refusal_never_happens_and_nothing_outside_is_gone(layout: Layout, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years of work")
    edit(layout, lambda body: body["retired"].update({"../../precious": OLD}))
    with pytest.raises(IndexCorruptError, match="can't be the name of a segment"):
        grow(layout, read_current(layout))
    assert (precious / "thesis.txt").read_text() == "years of work"


def test_tensors_are_stored_under_a_mode_of_the_index(layout: Layout) -> None:
    edit(layout, lambda body: body.setdefault("tensors", {}).update({body["modes"][0]: "hidden-int8"}))
    with pytest.raises(IndexCorruptError, match="which is no mode of the index"):
        read_current(layout)


OF_SEGMENT = ("items/SEGMENT", "items/SEGMENT/vectors", "items/SEGMENT/spare", "items/SEGMENT/spare/vectors")
FOLDERS = (
    *OF_SEGMENT,
    "items/planted",
    "generations",
    "items",
    "attention",
    "attention/style",
    "projections",
    "derived",
    "cache",
)


@pytest.mark.parametrize("name", [*FOLDERS, "CURRENT", "REMOTE", "LOCK"])
def test_a_link_inside_an_index_is_neither_read_nor_cleared(layout: Layout, tmp_path: Path, name: str) -> None:
    outside, generation = tmp_path / "outside", read_current(layout)
    for folder in ("000009", "000009.zarr", "style/000009.zarr"):
        (outside / folder).mkdir(parents=True)
        (outside / folder / "thesis.txt").write_text("years of work")
    before = sorted(outside.rglob("*"))
    path = layout.root / name.replace("SEGMENT", generation.segments[0].name)
    if path.exists():
        path.rename(tmp_path / "aside")
    path.symlink_to(outside if name in FOLDERS else outside / "000009" / "thesis.txt")
    for act in (lambda: read_current(layout), lambda: clear_uncommitted(layout, generation)):
        with pytest.raises(IndexCorruptError, match="symbolic link"):
            act()
    with pytest.raises(IndexCorruptError, match="symbolic link"):
        clear_uncommitted(layout, None)
    with pytest.raises(IndexCorruptError, match="symbolic link"):
        list(find_damage(layout.root))
    assert sorted(outside.rglob("*")) == before


def test_a_planted_link_is_removed_and_what_it_leads_to_stays(layout: Layout, tmp_path: Path) -> None:
    name = "attention/style/planted.zarr"
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "thesis.txt").write_text("years of work")
    (layout.root / name).symlink_to(outside)
    clear_uncommitted(layout, read_current(layout))
    assert not (layout.root / name).is_symlink()
    assert (outside / "thesis.txt").read_text() == "years of work"


def test_a_whole_index_may_be_reached_through_a_link(layout: Layout, tmp_path: Path) -> None:
    link = tmp_path / "link.diffsim"
    link.symlink_to(layout.root)
    assert len(IndexReader(link).attention("style", range(6))["q"]) == 6
    generation = grow(Layout(link), read_current(Layout(link)))
    assert len(IndexReader(commit(layout, generation, "tests") and layout.root)) == 9
