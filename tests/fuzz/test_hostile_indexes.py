"""Mutated indexes never crash, hang, lead out of their folder, or give wrong scores in silence."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from index_store.vectors import training
from retrieval import Engine, EngineSettings, build_index
from retrieval.indexing.upkeep.removing import remove_items
from tests.fuzz.sandbox import Base, Tally, answers_of, run_all
from tests.support.sample_index import RUN, paint
from tests.support.stub_models import tiny_model

SLICE, ALL = 36, 10_000  # mutations of the default suite, and of the slow one
BASES = {"qkv": ("qkv-float16", 0), "hidden": ("hidden-float16", 0), "compressed": ("hidden-float16", 2)}
"""The indexes that are mutated, by name: codec, and how much of the pictures is black."""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox needs fork, inotify and /proc")


@pytest.fixture
def tiny_ivf(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The tiny model, and IVF indexes from few rows on."""
    monkeypatch.setattr(training, "IVF_FROM_ROWS", 4)
    with tiny_model():
        yield


def make_base(folder: Path, name: str) -> Base:
    """Build an index with several segments, a removed item, an IVF index and cached tensors."""
    codec, black = BASES[name]
    photos, index = folder / "photos", folder / "base.diffsim"
    paint(photos, range(9), black=black)
    build_index(photos, index, modes=["style"], run=RUN, model="sd15", codec=codec)
    remove_items(index, ["id:3"])
    (photos / "003.png").unlink()
    paint(photos, range(20, 22), black=black)
    build_index(photos, index, run=replace(RUN, attention="lazy"))
    base = Base(index, photos, photos / "001.png")
    for _ in range(2):  # the first search computes and caches what is not stored
        base.answers = answers_of(Engine.open(index, EngineSettings(device="cpu")), base.query)[0]
    paint(photos, [30], black=black)  # a build has one new image
    return base


def make_outside(folder: Path) -> Path:
    """Make a folder beside the index that nobody may touch."""
    outside = folder / "outside"
    (outside / "precious").mkdir(parents=True)
    for path in (outside / "notes.txt", outside / "precious" / "thesis.txt"):
        path.write_text("years of work")
    return outside


def run(tmp_path: Path, name: str, numbers: range) -> Tally:
    base, outside = make_base(tmp_path, name), make_outside(tmp_path)
    tally = run_all(base, list(numbers), tmp_path / "sandbox", outside)
    assert not tally.failures, "\n".join([f"{len(tally.failures)} failures", *tally.failures[:25]])
    assert sum(tally.outcomes.values()) == len(numbers)
    return tally


@pytest.mark.parametrize("name", BASES)
@pytest.mark.thorough
def test_some_mutations(tiny_ivf: None, tmp_path: Path, name: str) -> None:
    assert "| same |" in run(tmp_path, name, range(SLICE // len(BASES))).table()


@pytest.mark.slow
@pytest.mark.parametrize("name", BASES)
def test_all_mutations(tiny_ivf: None, tmp_path: Path, name: str) -> None:
    print(run(tmp_path, name, range(SLICE // len(BASES), (SLICE + ALL) // len(BASES))).table())
