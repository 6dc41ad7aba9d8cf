"""Fills: in which order, of which modes, stopped and resumed."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from cli.advice import sentence_of
from index_store.layout import Layout
from index_store.reader import IndexReader
from retrieval.errors import IndexIncompatibleError, NoSpaceError, UsageError
from retrieval.indexing.reports import BuildEvent
from tests.indexing.builds import (
    BOTH,
    LAZY,
    answers,
    build_modes,
    computed,
    fill,
)
from tests.support.sample_index import Contents

IMAGES = 10

pytestmark = pytest.mark.usefixtures("tiny")


# --- Fill


def test_a_fill_completes_a_lazy_index_in_the_order_that_is_named(
    photos: Path, index: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, path in enumerate(sorted(photos.iterdir())):
        os.utime(path, ns=(0, 10**9 * (100 + (number * 7) % 10)))
    build_modes(photos, whole)
    expected = {
        "newest": [7, 4, 1, 8, 5, 2, 9, 6, 3, 0],
        "oldest": [0, 3, 6, 9, 2, 5, 8, 1, 4, 7],
        "path": list(range(10)),
    }
    alike = [Path(result.path).name for result in answers(whole, photos / "003.png", "style", rerank=False)]
    for order, numbers in expected.items():
        assert filled_order(photos, index, [order], monkeypatch) == [f"{number:03d}.png" for number in numbers]
    assert filled_order(photos, index, [f"like:{photos / '003.png'}"], monkeypatch)[0] == "003.png"
    build_modes(photos, index, ["style"], LAZY)
    assert filled_order(photos, index, ["like:003.png"], monkeypatch, ["style"]) == alike
    two = filled_order(photos, index, ["like:003.png", "like:id:7"], monkeypatch)
    assert sorted(two[:2]) == ["003.png", "007.png"]


def filled_order(
    photos: Path, index: Path, order: list[str], monkeypatch: pytest.MonkeyPatch, modes: list[str] | None = None
) -> list[str]:
    """Build lazily, fill, and return the files in the order in which they were filled."""
    shutil.rmtree(index, ignore_errors=True)
    build_modes(photos, index, modes or BOTH, LAZY)
    assert IndexReader(index).generation.segments[0].attention == {}
    report = fill(index, order=order)
    assert report.coverage == dict.fromkeys(modes or BOTH, 10)
    assert (report.completed, report.adopted, report.incomplete) == (10, 0, 0)
    whole = Contents.of(photos.parent / "whole.diffsim")
    assert Contents.of(index).tensors == {k: v for k, v in whole.tensors.items() if k.split("/")[0] in (modes or BOTH)}
    reader = IndexReader(index)
    ids = [np.load(Layout(index).filled(s.name)) for s in reader.generation.segments if s.filled]
    return [Path(reader.items([int(number)])[0].uri).name for number in np.concatenate(ids)]


@pytest.mark.parametrize("order", [["newer"], ["newest", "path"], ["like:"], ["newest", "like:x.png"], []])
def test_orders_that_make_no_sense_are_refused(photos: Path, index: Path, order: list[str]) -> None:
    build_modes(photos, index, ["style"], LAZY)
    with pytest.raises(UsageError, match="like:QUERY"):
        fill(index, order=order)


def test_a_fill_of_some_modes_and_of_modes_that_are_not_there(photos: Path, index: Path) -> None:
    build_modes(photos, index, BOTH, LAZY)
    assert fill(index, modes=["instance"]).coverage == {"style": 0, "instance": 10}
    with pytest.raises(IndexIncompatibleError, match="not for semantic") as caught:
        fill(index, modes=["semantic"])
    assert f"add them with: diffsim-index build {photos} --modes semantic --index {index}" in sentence_of(caught.value)
    with pytest.raises(UsageError, match="unknown mode 'stile'"):
        fill(index, modes=["stile"])
    assert fill(index).completed == 10
    assert fill(index).completed == 0


def test_a_fill_that_is_interrupted_keeps_what_it_has_and_goes_on(
    photos: Path, index: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_modes(photos, index, BOTH, LAZY)
    for number in range(1, 5):

        def stop(event: BuildEvent) -> None:
            if event.stage == "encode":
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            fill(index, on_progress=stop)
        assert IndexReader(index).has_tensors("style").sum() == 2 * number
    batches = computed(monkeypatch)
    assert fill(index).completed == 2
    assert batches == [(2, ("style", "instance"), ())]
    assert Contents.of(index).differences(Contents.of(whole)) == []


def test_a_fill_that_cannot_fit_stops_before_anything_is_stored(
    photos: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One image is 1152 bytes of tensors a mode."""
    build_modes(photos, index, BOTH, LAZY)
    usage = shutil.disk_usage(photos)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=2 * 1152 * 10 - 1))
    with pytest.raises(NoSpaceError, match="would grow by"):
        fill(index)
    assert not list((index / "attention").rglob("*.zarr"))
