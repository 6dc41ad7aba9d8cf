"""Explanations: parts sum to the score of a search for every model, readout and codec, and lie on the right cells."""

import json
import shutil
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from index_store.codecs import CODECS, DEFAULT_CODEC
from retrieval import Box, Engine, EngineSettings, Query, build_index, draw_explanations
from retrieval.errors import UsageError
from retrieval.images.preprocessing import Preprocessing, crop_region
from retrieval.models.modes import Target
from retrieval.models.protocols import Pixels
from retrieval.models.token_grid import TokenGrid
from retrieval.scoring.aas import QKV
from retrieval.search.explaining.explanation import ImageExplanation
from retrieval.search.results import Result
from retrieval.settings import BuildSettings
from retrieval.types import Role
from tests.models.test_vit import write_tiny_models
from tests.slices import loads_model_libraries, slice_of
from tests.support import stub_models
from tests.support.paths import DATA
from tests.support.sample_index import RUN, paint
from tests.support.stub_models import TinyExtractor

TINY = DATA / "tiny_sd15"
PICTURES = sorted((DATA / "golden_images").glob("*.png"))
MODELS: dict[str, dict[str, Any]] = {
    "cells": {"modes": ["style", "instance", "semantic"]},
    "mini": {"modes": ["style", "instance", "semantic", "lowlevel"]},
    "sd15": {"weights": str(TINY), "image_size": 128, "encoders": {}, "modes": ["style"]},
    "clip-aas": {"weights": "clip", "encoders": {}, "modes": ["semantic"]},
    "dinov2-aas": {"weights": "dinov2", "encoders": {}, "modes": ["semantic"]},
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    write_tiny_models(folder)
    return folder


def built(index: Path, model: str, weights: Path, **more: Any) -> Engine:
    choices = {**MODELS[model], **more}
    if choices.get("weights") in ("clip", "dinov2"):
        choices["weights"] = str(weights / choices["weights"])
    build_index(DATA / "golden_images", index, model=model, run=RUN, **choices)
    return Engine.open(index)


def check(found: ImageExplanation, result: Result) -> None:
    """Parts sum to the score, and the strongest pairs are those of the maps."""
    parts = sum(float(each.parts.sum()) + each.other for each in (found.query, found.candidate))
    assert result.score == pytest.approx(parts, abs=1e-5)
    assert result.score == pytest.approx(found.score, abs=1e-5)
    assert found.candidate.path == result.path
    assert found.attention is not None
    assert found.attention.shape == (*found.query_map.shape, *found.candidate_map.shape)
    attended = found.attention.sum(axis=(2, 3))
    assert (attended <= 1 + 1e-5).all()
    assert (attended > 1 - 1e-5).all() == (not found.query.grid.before)  # the rest goes to class tokens
    weights = [pair.weight for pair in found.correspondences]
    assert weights == sorted(weights, reverse=True)
    assert all(weight > 0 for weight in weights)
    assert json.loads(json.dumps(found.to_dict()))["score"] == found.score


@loads_model_libraries
@pytest.mark.parametrize(
    ("model", "codec"),
    slice_of(product(MODELS, CODECS), lambda model, codec: model == "cells" or codec == DEFAULT_CODEC),
)
def test_parts_sum_to_the_score_of_the_search(model: str, codec: str, weights: Path, tmp_path: Path) -> None:
    engine = built(tmp_path / "x.diffsim", model, weights, codec=codec)
    for mode in engine.modes:
        results = engine.search(PICTURES[0], mode, k=4, exhaustive=True)
        for result, found in zip(results, engine.explain_all(PICTURES[0], results, mode), strict=True):
            check(found, result)


def test_a_lazy_index_is_explained_by_tensors_that_are_computed(tmp_path: Path) -> None:
    shutil.copytree(DATA / "golden_images", tmp_path / "photos")
    index = tmp_path / "x.diffsim"
    build_index(tmp_path / "photos", index, model="cells", modes=["style"], run=BuildSettings(attention="lazy"))
    engine = Engine.open(index, EngineSettings(max_cache=0))
    result = engine.search(PICTURES[0], k=2)[1]
    check(engine.explain(PICTURES[0], result), result)
    Path(result.path).unlink()
    with pytest.raises(UsageError, match="its style tensors are not in the index, and the file is gone") as caught:
        engine.explain(PICTURES[0], result)
    assert caught.value.advice == "update-the-index"


def test_a_candidate_is_a_result_an_id_a_name_or_another_image(index: Path, gallery: Path, tmp_path: Path) -> None:
    engine, query = Engine.open(index), gallery / "ink" / "cat.png"
    result = next(each for each in engine.search(query, k=5) if each.path != str(query))
    score = engine.explain(query, result).score
    end = "/".join(Path(result.path).parts[-2:])
    copy = shutil.copy(result.path, tmp_path / "copy.png")
    given = (result.id, f"id:{result.id}", result.path, Path(result.path), end)
    others = (copy, Path(copy).read_bytes(), Image.open(copy))
    for candidate in (*given, *others):
        assert engine.explain(query, candidate).score == pytest.approx(score, abs=1e-6)
    assert engine.explain(query, others[1]).candidate.path is None
    with pytest.raises(UsageError, match="no item with the id 4000"):
        engine.explain(query, 4000)
    with pytest.raises(UsageError, match="no such file"):
        engine.explain(query, "nothing.png")
    with pytest.raises(UsageError, match="explain_board splits one of several"):
        engine.explain(Query([query, copy]), result)


BOARDS: dict[str, dict[str, Any]] = {
    "mean": {"weights": [2, 1, 1]},
    "max": {"combine": "max"},
    "union": {"combine": "union", "weights": [1, 1, 3]},
    "union of a region": {"combine": "union", "regions": [None, Box(0.2, 0.1, 0.5, 0.6), None]},
    "mean of a region": {"regions": [Box(0.2, 0.1, 0.5, 0.6), None, None]},
    "moved away": {"minus": [PICTURES[3]], "minus_weights": [2]},
}


@pytest.mark.parametrize("model", ["cells", "mini"])
@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.thorough
def test_parts_of_a_board_sum_to_its_score(board: str, model: str, tmp_path: Path) -> None:
    engine = built(tmp_path / "x.diffsim", model, tmp_path)
    question = Query(PICTURES[:3], **BOARDS[board])
    for mode in ("style", "instance"):
        results = engine.search(question, mode, k=3, exhaustive=True)
        for result, found in zip(results, engine.explain_board(question, results, mode), strict=True):
            assert found.score == pytest.approx(result.score, abs=1e-5)
            sides = [side for image in found.images for side in (image.query, image.candidate)]
            assert sum(float(side.parts.sum()) + side.other for side in sides) == pytest.approx(result.score, abs=1e-5)
            assert len(found.images) == (1 if board == "max" else 3) + (board == "moved away")
            assert [image.score < 0 for image in found.images] == [image.query.path == str(PICTURES[3]) for image in
                                                                   found.images]  # fmt: skip
            assert json.loads(json.dumps(found.to_dict()))["score"] == found.score
    draw_explanations(tmp_path / "board.png", [found])
    with Image.open(tmp_path / "board.png") as picture:
        assert picture.height > len(found.images) * 288


def test_an_image_of_a_union_has_the_parts_of_its_tokens(tmp_path: Path) -> None:
    """The copy of the candidate in a union makes more of the score than another image."""
    engine = built(tmp_path / "x.diffsim", "mini", tmp_path)
    union = Query([PICTURES[1], PICTURES[0]], combine="union")
    (found,) = engine.explain_board(union, [str(PICTURES[0])], "instance")
    assert found.images[1].score > found.images[0].score
    alone = engine.explain(PICTURES[0], str(PICTURES[0]), "instance")
    (single,) = engine.explain_board(PICTURES[0], [str(PICTURES[0])], "instance")
    assert single.images[0].to_dict() == alone.to_dict()


@pytest.fixture
def patchwork(tmp_path: Path) -> tuple[Engine, Path, Path]:
    """Two pictures of 6 x 6 squares: a red square lies at row 1, column 4 of one, at row 5, column 0 of the other."""
    folder = tmp_path / "photos"
    folder.mkdir()
    paths = []
    for name, seed, (row, column) in (("a.png", 1, (1, 4)), ("b.png", 2, (5, 0))):
        squares = np.random.default_rng(seed).integers(60, 90, (6, 6, 3), np.uint8)
        squares[..., 2] += 90
        squares[row, column] = (250, 30, 20)
        paths.append(folder / name)
        Image.fromarray(squares).resize((240, 120), Image.Resampling.NEAREST).save(paths[-1])
    build_index(folder, tmp_path / "x.diffsim", model="cells", modes=["style"], run=RUN)
    return Engine.open(tmp_path / "x.diffsim"), paths[0], paths[1]


def test_a_point_attends_to_its_counterpart(patchwork: tuple[Engine, Path, Path]) -> None:
    engine, first, second = patchwork
    found = engine.explain(first, second)
    there = found.where(x=(4 + 0.5) / 6, y=(1 + 0.5) / 6)
    assert there.shape == (6, 6)
    assert np.unravel_index(int(there.argmax()), there.shape) == (5, 0)
    assert there.max() > 0.9
    strongest = found.correspondences[0]
    assert (strongest.query, strongest.candidate) == ((1, 4), (5, 0))
    assert strongest.weight == pytest.approx(found.query_map[1, 4] * there[5, 0] + found.candidate_map[5, 0], rel=0.1)
    assert found.where(1.0, 1.0) == pytest.approx(found.attention[5, 5] if found.attention is not None else None)


def test_the_weights_of_all_pairs_sum_to_the_score(patchwork: tuple[Engine, Path, Path]) -> None:
    engine, first, second = patchwork
    (found,) = engine.explain_all(first, [second], correspondences=10_000)
    assert len(found.correspondences) == 36 * 36
    assert sum(pair.weight for pair in found.correspondences) == pytest.approx(found.score, abs=1e-4)


@loads_model_libraries
def test_class_tokens_lie_on_no_cell_and_a_crop_leaves_a_region(weights: Path, tmp_path: Path) -> None:
    engine = built(tmp_path / "x.diffsim", "clip-aas", weights)
    wide = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 120, 3), np.uint8))
    found = engine.explain(wide, PICTURES[1])
    assert found.query.grid == TokenGrid(4, 4, before=1, region=crop_region((108, 36), (32, 32)))
    assert found.query.other != 0
    assert found.where(0.5, 0.5).shape == (4, 4)
    with pytest.raises(UsageError, match=r"outside the part that the model sees: x from 0\.352 to 0\.648"):
        found.where(0.1, 0.5)


def test_a_region_is_the_part_that_is_left_of_a_picture() -> None:
    rules = Preprocessing(36, 32, (0.5,) * 3, (0.5,) * 3)
    picture = Image.new("RGB", (90, 60))
    left, top, right, bottom = (
        round(at * side) for at, side in zip(rules.region(*picture.size), picture.size * 2, strict=True)
    )
    picture.paste((255, 0, 0), (left, top, right, bottom))
    seen = rules.prepare(picture)
    assert (seen[2:-2, 2:-2, 0] > 200).all()
    assert rules.region(90, 60)[::2] == (11 / 54, 43 / 54)


class FewKeys(TinyExtractor):
    """Sixteen queries and twelve keys, as keys of DiffSim-C are tokens of their own; or ``tokens`` queries."""

    tokens = 16

    def extract(self, pixels: Pixels, targets: Sequence[Target], role: Role) -> dict[Target, QKV]:
        found = super().extract(pixels, targets, role)
        return {
            target: QKV(qkv.q.repeat(1, 1, 1, 2, 1)[:, :, :, : self.tokens], qkv.k, qkv.v)
            for target, qkv in found.items()
        }


@pytest.mark.parametrize("tokens", [16, 12])
def test_other_keys_have_parts_and_no_places_and_other_tokens_no_map(
    tokens: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stub_models, "TinyExtractor", FewKeys)
    monkeypatch.setattr(FewKeys, "tokens", tokens)
    first, second = paint(tmp_path / "photos", range(2))
    index, load = tmp_path / "x.diffsim", stub_models.load_tiny
    choices: dict[str, Any] = {"modes": ["style"], "codec": "qkv-float16", "run": RUN, "load": load}
    build_index(tmp_path / "photos", index, model="cells", **choices)
    engine = Engine.open(index, load=load)
    if tokens == 12:
        with pytest.raises(UsageError, match="the 12 tokens of this model lie on no grid"):
            engine.explain(first, second)
        return
    found, result = engine.explain(first, second), engine.search(first, exhaustive=True)[1]
    assert found.score == pytest.approx(result.score, abs=1e-5)
    assert found.query_map.shape == (4, 4)
    assert (found.attention, tuple(found.correspondences)) == (None, ())
    with pytest.raises(UsageError, match="keys of this model are no cells"):
        found.where(0.5, 0.5)
    draw_explanations(str(tmp_path / "drawn.png"), [found])
    with pytest.raises(UsageError, match="no explanation"):
        draw_explanations(tmp_path / "none.png", [])
