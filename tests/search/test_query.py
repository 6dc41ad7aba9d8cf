"""A query: one image, read once and validated."""

import hashlib
from collections.abc import Mapping
from dataclasses import FrozenInstanceError
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retrieval import Engine, build_index
from retrieval.drawing.cells import SheetCell
from retrieval.encoding.loaded_models import LoadedModels
from retrieval.errors import ImageError, UsageError
from retrieval.images.decoding import DecodeRules
from retrieval.models.mini.network import Lite0
from retrieval.models.modes import Target
from retrieval.search.queries.picture import Picture
from retrieval.search.queries.query import QueryInput
from retrieval.search.results import Result, Results
from retrieval.search.results_sheet import draw_results, sheet_rows
from retrieval.settings import ModelSettings
from tests.support.sample_index import RUN, paint
from tests.support.stub_models import load_tiny

RULES = DecodeRules()


def test_a_query_knows_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = paint(tmp_path, ["a.png"])[0]
    monkeypatch.chdir(tmp_path)
    query = Picture.read("a.png", RULES)
    assert query.about() == {
        "path": str(path),
        "width": query.image.width,
        "height": query.image.height,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    assert Picture.read(path.read_bytes(), RULES).about() == {**query.about(), "path": None}
    array = np.asarray(query.image)
    for image in (query.image, array):
        size = {"width": query.width, "height": query.height}
        assert Picture.read(image, RULES).about() == {"path": None, **size}  # there is no file's digest
    with pytest.raises(FrozenInstanceError):
        query.path = "b.png"  # type: ignore[misc]


def test_transparency_follows_the_rules() -> None:
    clear = Image.new("RGBA", (4, 4), (9, 9, 9, 0))
    assert Picture.read(clear, DecodeRules(alpha="white")).image.getpixel((0, 0)) == (255, 255, 255)
    assert Picture.read(clear, DecodeRules(alpha="drop")).image.getpixel((0, 0)) == (9, 9, 9)


def test_a_query_is_validated(tmp_path: Path) -> None:
    picture = Image.new("RGB", (4, 3))
    with pytest.raises(UsageError, match="must be RGB, not L"):
        Picture(picture.convert("L"), 4, 3)
    with pytest.raises(UsageError, match="size must be positive, not 0 x 3"):
        Picture(picture, 0, 3)
    with pytest.raises(ImageError, match="is a folder; name images"):
        Picture.read(tmp_path, RULES)
    with pytest.raises(ImageError, match="no such file"):
        Picture.read(tmp_path / "no.png", RULES)


def results(path: Path) -> Results:
    found = Result(rank=1, id=0, path=str(path), score=0.5, coarse_score=None, coarse_rank=None)
    return Results((found,), {}, "style", {}, {})


def test_every_kind_of_query_is_drawn(tmp_path: Path) -> None:
    path = paint(tmp_path / "folder", ["a.png"])[0]
    read = Picture.read(path, RULES)
    inputs: list[QueryInput] = [str(path), path, read, path.read_bytes(), read.image, np.asarray(read.image)]
    inputs.append(Picture(read.image, read.width, read.height))
    for query in inputs:
        draw_results(tmp_path / "sheet.png", [(query, results(path))])
        (row,) = sheet_rows([results(path)], query)
        assert isinstance(row.query, SheetCell)
        named = isinstance(query, str | Path) or query is read
        assert row.query.note == ("folder/a.png" if named else "")
        assert (tmp_path / "sheet.png").stat().st_size > 0
        (tmp_path / "sheet.png").unlink()


@pytest.mark.usefixtures("tiny")
def test_an_engine_loads_models_once_by_the_function_it_is_given(tmp_path: Path) -> None:
    path = paint(tmp_path / "photos", range(5))[3]
    modes, index = ["style", "instance"], tmp_path / "t.diffsim"
    # With the codec cells takes by default, the tiny model stores other tensors than it gives a query.
    build_index(tmp_path / "photos", index, model="cells", modes=modes, codec="qkv-float16", run=RUN)
    loads: list[str] = []

    def load(settings: ModelSettings, targets: Mapping[str, Target], device: str, offline: bool) -> LoadedModels:
        loads.append(settings.model)
        return load_tiny(settings, targets, device, offline)

    engine = Engine.open(index, load=load)
    assert loads == []
    query = engine.read_query(path)
    path.unlink()  # it is read once
    for mode in engine.modes:
        assert engine.search(query, mode)[0].path == str(path)
    assert loads == ["cells"]


def test_a_query_passes_mini_once_for_its_vectors_and_tensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = paint(tmp_path / "photos", range(2))[1]
    build_index(tmp_path / "photos", tmp_path / "m.diffsim", model="mini", modes=["style", "semantic"], run=RUN)
    engine, passes, stages = Engine.open(tmp_path / "m.diffsim"), list[int](), Lite0.stages
    monkeypatch.setattr(Lite0, "stages", lambda network, pixels: passes.append(len(pixels)) or stages(network, pixels))
    for rerank in (True, False):
        assert engine.search(path, "style", rerank=rerank)[0].path == str(path)
    assert passes == [1, 1]
