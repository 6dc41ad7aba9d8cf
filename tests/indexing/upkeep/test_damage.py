"""Damaged files: searches give the truth or an error that names the file; a repair takes the damage out."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from index_store.commit import commit
from index_store.generation import read_current
from index_store.layout import Layout
from index_store.reader import IndexReader
from retrieval.encoding.loaded_models import LoadedModels, load_models
from retrieval.errors import IndexCorruptError
from retrieval.indexing.build import build_index
from retrieval.indexing.upkeep.compacting import compact
from retrieval.indexing.upkeep.repairing import repair, verify
from retrieval.search.engine import Engine
from retrieval.search.results import Results
from retrieval.settings import BuildSettings, EngineSettings
from tests.indexing.builds import build
from tests.slices import EVERY
from tests.support.faults import flip_bit
from tests.support.ranking import assert_same_ranking
from tests.support.sample_index import Contents, paint

pytestmark = pytest.mark.usefixtures("tiny")


def damage(path: Path) -> None:
    """Flip one bit: of a shard in its first row, of anything else in the middle."""
    data = bytearray(path.read_bytes())
    data[10 if path.name == "0" else len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("victim", "incomplete"),
    [
        ("items/000002/items.parquet", {}),
        ("items/000002/spare/rejects.parquet", {}),
        ("items/000003/vectors/descriptor.npy", {"descriptor": 4}),
        ("attention/style/000002.zarr/k/c/0/0/0/0/0", {"style": 1}),
        ("CURRENT", {}),
        ("generations/000004.json", {}),
    ],
)
def test_damage_is_found_taken_out_and_computed_again(
    built: tuple[Path, Path], victim: str, incomplete: dict[str, int]
) -> None:
    folder, index = built
    whole = Contents.of(index)
    assert verify(index) == []
    damage(index / victim)
    found = verify(index)
    assert len(found) == 1
    damaged = victim.partition("/k/")[0]  # of tensors the group is named, and the row
    assert str(index / damaged) in found[0].what
    planned = repair(index, dry_run=True)
    assert verify(index) == found, "a dry run changes nothing"
    assert repair(index) == planned
    assert (planned.damages, planned.items_before, planned.items, planned.incomplete) == (found, 10, 10, incomplete)
    assert verify(index) == []
    assert len(IndexReader(index)) == 10
    report = build(folder, index)
    assert (report.added, report.completed) == (0, sum(incomplete.values()))
    assert Contents.of(index).differences(whole) == []


@pytest.mark.parametrize(
    ("one", "other", "lost"),
    [
        ("000002.zarr/q/c/0", "000002.zarr/q/c/1", 4),
        ("000002.zarr/q/c/1", "000003.zarr/q/c/1", 4),
        ("000002.zarr/q/c/0", "000002.zarr/v/c/0", 2),
        ("000002.zarr", "000003.zarr", 8),
    ],
)
@pytest.mark.thorough
def test_shards_that_changed_places_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one: str, other: str, lost: int
) -> None:
    """Every row of them matches its own checksum."""
    monkeypatch.setattr("index_store.tensors.attention.SHARD_ROWS", 2)
    folder, index = tmp_path / "images", tmp_path / "images.diffsim"
    paint(folder, range(10))
    build(folder, index)
    whole = Contents.of(index)
    paths = [index / "attention" / "style" / name for name in (one, other)]
    paths[0].rename(tmp_path / "aside")
    paths[1].rename(paths[0])
    (tmp_path / "aside").rename(paths[1])
    found = verify(index)
    assert sum(len(damage.rows) for damage in found) == lost
    assert all("holds another shard in the place of shard" in damage.what for damage in found)
    assert repair(index).incomplete == {"style": lost}
    assert verify(index) == []
    assert build(folder, index).completed == lost
    assert Contents.of(index).differences(whole) == []


def test_an_index_whose_shards_were_not_noted_is_verified_as_before(built: tuple[Path, Path]) -> None:
    """As version 0.1.0 was at first: without the file."""
    _, index = built
    generation = read_current(Layout(index))
    segments = []
    for segment in generation.segments:
        Layout(index).shards(segment.name).unlink()
        files = {name: record for name, record in segment.files.items() if name != "shards.json"}
        segments.append(replace(segment, files=files))
    commit(Layout(index), replace(generation, segments=tuple(segments)), "tests")
    assert verify(index) == []
    assert compact(index).items == 10
    assert verify(index) == []


def test_where_current_is_lost_only_generations_that_are_still_whole_are_offered(built: tuple[Path, Path]) -> None:
    folder, index = built
    layout = Layout(index)

    def offered() -> list[str]:
        kept = layout.current.read_bytes()
        layout.current.unlink()
        with pytest.raises(IndexCorruptError, match="is missing") as caught:
            Engine.open(index)
        names = str(caught.value).partition("write its name into it: ")[2]
        for name in names.split(", ") if names else []:
            layout.current.write_text(name)
            assert verify(index) == []
        layout.current.write_bytes(kept)
        return names.split(", ") if names else []

    assert offered() == ["000002.json", "000003.json", "000004.json"]
    compact(index)
    assert offered() == ["000003.json", "000004.json", "000005.json"], "the old segments are kept for a day"
    paint(folder / "a", ["new.png"])
    build(folder, index)
    compact(index, now=True)
    newest = read_current(layout).number
    assert offered() == [f"{newest:06d}.json"], "the first is empty: a build after it would clear all away"
    layout.generation(newest - 1).write_text("{}")
    assert offered() == [f"{newest:06d}.json"]
    shutil.rmtree(next((index / "attention" / "style").iterdir()))
    assert offered() == []


def test_a_missing_shard_costs_its_rows_and_no_more(built: tuple[Path, Path]) -> None:
    _, index = built
    (index / "attention/style/000003.zarr/v/c/0/0/0/0/0").unlink()
    (found,) = verify(index)
    assert "missing" in found.what
    assert found.rows == (0, 1, 2, 3)
    assert repair(index).incomplete == {"style": 4}
    assert len(IndexReader(index)) == 10


# --- Files are damaged


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten images and a reject under the embedded model; two segments."""
    folder = tmp_path_factory.mktemp("real")
    paint(folder / "photos", range(11))
    (folder / "photos" / "007.png").write_bytes(b"no image")
    run = BuildSettings(device="cpu", batch_size=6, segment_rows=6, workers=1)
    build_index(
        folder / "photos",
        folder / "x.diffsim",
        model="cells",
        modes=["style"],
        image_size=64,
        codec="qkv-float16",
        run=run,
        load=load_models,
    )
    return folder / "x.diffsim"


@pytest.fixture(scope="module")
def search(real: Path) -> Callable[[Path], list[Results]]:
    """Search in two ways what is opened anew each time; only the models are loaded once."""
    loaded: list[LoadedModels] = []

    def load_once(*arguments: Any) -> LoadedModels:
        loaded[:] = loaded or [load_models(*arguments)]
        return loaded[0]

    def search(index: Path) -> list[Results]:
        query = real.parent / "photos" / "003.png"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("retrieval.search.engine.load_models", load_once)
            engine = Engine.open(index, EngineSettings(device="cpu"))
            return [
                engine.search(query, "style", exhaustive=True, k=100),
                engine.search(query, "style", candidates=3, k=3),
            ]

    return search


DAMAGES: dict[str, Callable[[Path], object]] = {
    "deleted": Path.unlink,
    "emptied": lambda path: path.write_bytes(b""),
    "halved": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "one byte short": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "zeroed": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "last 4 KB zeroed": lambda path: path.write_bytes(
        path.read_bytes()[:-4096] + bytes(min(4096, path.stat().st_size))
    ),
    "grown": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    **{
        f"bit at {percent} %": lambda path, percent=percent: flip_bit(
            path, (8 * path.stat().st_size - 1) * percent // 100
        )
        for percent in (0, 11, 50, 83, 100)
    },
}
HARMLESS = {
    "LOCK": "holds nothing",
    "generations/000002.json": "is an older generation",
    "items/000003/rejects.parquet": "is read when rejects are asked for",
    "attention/style/000003.zarr/q/zarr.json": "is there for other readers",
}


@pytest.mark.thorough
def test_damage_to_any_file_gives_the_same_results_or_an_error_that_names_it(
    real: Path, search: Callable[[Path], list[Results]], tmp_path: Path
) -> None:
    expected = search(real)
    shard = "c/0/0/0/0/0"
    files = ["CURRENT", "generations/000003.json", "items/000002/items.parquet", "items/000003/items.parquet"]
    files += ["items/000003/vectors/descriptor.npy"]
    files += [f"attention/style/000003.zarr/{array}/{shard}" for array in ("qkv" if EVERY else "k")]  # alike
    index = tmp_path / "x.diffsim"
    shutil.copytree(real, index)
    print(f"\n{'file':45} {'damage':17} outcome")
    for name in [*files, *HARMLESS]:
        victim = index / name
        content = victim.read_bytes()
        for damage, apply in DAMAGES.items():
            if name == "LOCK" and damage not in ("deleted", "grown"):
                continue  # it is empty
            apply(victim)
            try:
                outcome, message = "the same results", ""
                assert_same_results(search(index), expected)
            except IndexCorruptError as error:
                outcome, message = "an error that names it", str(error)
            harmless = name in HARMLESS or (name, damage) == ("CURRENT", "one byte short")  # the newline
            assert harmless == (not message), f"{name} {damage}: {message}"
            assert not message or name in message or (damage == "deleted" and f"('{victim.name}')" in message)
            print(f"{name:45} {damage:17} {outcome}")
            victim.write_bytes(content)
    assert_same_results(search(index), expected)


def assert_same_results(found: list[Results], expected: list[Results]) -> None:
    for mine, theirs in zip(found, expected, strict=True):
        assert_same_ranking(mine, theirs)
