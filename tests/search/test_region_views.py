"""Regions drawn small, subjects that the model finds, and explanations of both."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from retrieval import Box, Engine, Query, Subject, build_index
from retrieval.errors import UsageError
from retrieval.images.decoding import DecodeRules
from retrieval.models.mask_tokens import prepare_of, token_weights
from retrieval.models.token_grid import TokenGrid, grid_of
from retrieval.scoring.aas import Comparison, aligned_attention_scores
from retrieval.search.queries.cutting import cut_subject
from retrieval.search.queries.picture import Picture
from retrieval.search.queries.region import Region
from retrieval.search.queries.small_view import SMALL, small_view
from retrieval.search.regions.region_views import onto_cut_out
from retrieval.search.results_sheet import sheet_rows
from tests.models.test_vit import write_tiny_models
from tests.slices import loads_model_libraries
from tests.support.paths import DATA
from tests.support.sample_index import RUN

pytestmark = loads_model_libraries

PICTURES = sorted((DATA / "golden_images").glob("*.png"))
BOX = Box(0.2, 0.1, 0.5, 0.6)
MODELS: dict[str, dict[str, Any]] = {
    "cells": {"modes": ["instance"]},
    "mini": {"modes": ["instance", "style"]},
    "sd15": {"weights": str(DATA / "tiny_sd15"), "image_size": 128, "encoders": {}, "modes": ["style"]},
    "clip-aas": {"weights": "clip", "encoders": {}, "modes": ["semantic"]},
}


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Engine]:
    folder = tmp_path_factory.mktemp("models")
    write_tiny_models(folder)
    for model, choices in MODELS.items():
        more = {**choices, "weights": str(folder / "clip")} if model == "clip-aas" else choices
        build_index(DATA / "golden_images", folder / f"{model}.diffsim", model=model, run=RUN, **more)
    return {model: Engine.open(folder / f"{model}.diffsim") for model in MODELS}


sides = st.integers(1, 4000)
fractions = st.floats(0.01, 0.7)


@given(sides, sides, fractions, fractions)
@settings(max_examples=40, deadline=None)
def test_a_region_is_drawn_small_in_the_middle(width: int, height: int, across: float, down: float) -> None:
    cut = Image.new("RGB", (max(1, round(across * width)), max(1, round(down * height))), (200, 10, 30))
    view = small_view(Picture(cut, width, height), Region((0.1, 0.1, across, down)))
    assert view.drawing.size == view.mask.size
    assert max(view.drawing.size) <= 512
    x, y, wide, high = view.box
    assert max(wide, high) == pytest.approx(SMALL, abs=0.02)
    assert (x + wide / 2, y + high / 2) == pytest.approx((0.5, 0.5), abs=0.02)
    white = np.argwhere(np.asarray(view.mask) == 255)
    assert len(white) == round(wide * view.drawing.width) * round(high * view.drawing.height)
    assert set(view.drawing.getdata()) == {(200, 10, 30)}, "the mean colour of one colour is this colour"


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2), fractions, fractions)
@settings(max_examples=40, deadline=None)
def test_shares_of_small_tokens_lose_nothing(side: int, other: int, before: int, start: float, length: float) -> None:
    grids = TokenGrid(side, side, before), TokenGrid(other, other + 1, before)
    shares = onto_cut_out((min(start, 1 - length), 0.25, length, 0.5), *grids)
    assert shares.shape == (grids[1].tokens, grids[0].tokens)
    assert torch.allclose(shares.sum(dim=0), torch.ones(grids[0].tokens))
    assert bool((shares >= 0).all())


def test_mini_asks_with_both_views_of_a_region(engines: dict[str, Engine]) -> None:
    engine = engines["mini"]
    found = engine.search(Query([PICTURES[0]], regions=[BOX]), "instance", k=4, exhaustive=True)
    context = engine._context
    picture = engine.read_query(Query([PICTURES[0]], regions=[BOX])).pictures[0]
    candidate = engine.read_query(found[2].path).pictures[0].image
    assert picture.region is not None
    view = small_view(picture, picture.region)
    large, small, other = (
        context.tensors([context.models.prepare(image)], role, "instance")  # type: ignore[arg-type]
        for image, role in (
            (picture.image, "query"),
            (view.drawing, "query"),
            (candidate, "gallery"),
        )
    )
    extractor, target = context.models.extractor, context.models.targets["instance"]
    weights = token_weights(prepare_of(extractor, target), view.mask, grid_of(extractor, 49, view.drawing.size))
    assert 0 < (weights > 0).sum() < 49
    how = Comparison(readout=context.models.readout("instance"), directions="query_to_candidate")
    at_full_size = aligned_attention_scores(large, other, how)
    drawn_small = aligned_attention_scores(small, other, how, query_mask=weights)
    assert abs(float(at_full_size - drawn_small)) > 2 * 2e-3, "so that the mean is neither of them"
    assert found[2].score == pytest.approx(
        float(at_full_size + drawn_small) / 2, abs=2e-3
    )  # stored tensors are rounded


@pytest.mark.parametrize("model", MODELS)
def test_regions_of_every_model_are_explained(model: str, engines: dict[str, Engine]) -> None:
    engine = engines[model]
    for mode in engine.modes:
        for region in (BOX, Subject()):
            question = Query([PICTURES[1]], regions=[region])
            results = engine.search(question, mode, k=3, exhaustive=True)
            assert all(result.found_box is not None for result in results)
            for result, found in zip(results, engine.explain_all(question, results, mode), strict=True):
                parts = [float(each.parts.sum()) + each.other for each in (found.query, found.candidate)]
                assert sum(parts) == pytest.approx(result.score, abs=1e-5)
                assert parts[0] == pytest.approx(parts[1], abs=1e-5), "half of the score lies on each side"
                assert found.where(0.5, 0.5).shape == found.candidate_map.shape
                weights = [pair.weight for pair in found.correspondences]
                assert weights == sorted(weights, reverse=True)


def test_a_subject_is_searched_like_its_box(engines: dict[str, Engine], tmp_path: Path) -> None:
    engine = engines["mini"]
    scene = Image.effect_noise((300, 200), 20).convert("RGB")
    scene.paste(Image.open(PICTURES[0]).convert("RGB").resize((128, 85)), (86, 57))
    scene.save(tmp_path / "scene.png")
    question = Query([tmp_path / "scene.png"], regions=[Subject()])
    found = engine.search(question, "instance", k=4)
    region = found.query["region"]
    assert region["subject"] is True
    x, y, width, height = region["box"]
    assert (width, height) != (1, 1)
    same = engine.search(Query([tmp_path / "scene.png"], regions=[Box(x, y, width, height)]), "instance", k=4)
    assert [(r.id, r.score) for r in found] == [(r.id, pytest.approx(r.score, abs=1e-5)) for r in same]
    assert json.dumps(found.to_dict())
    (row,) = sheet_rows([found], question)
    assert row.query.box == pytest.approx((x, y, width, height))
    several = Query([tmp_path / "scene.png", PICTURES[2]], regions=[Subject(), None])
    images = engine.search(several, "instance").query["images"]
    assert images[0]["region"] == region
    assert "region" not in images[1]
    assert not any(result.found_box for result in engine.search(question, "instance", rerank=False))
    with pytest.raises(UsageError, match="one whole image on each side"):
        engine.score(question, PICTURES[1])
    with pytest.raises(UsageError, match="explain_board splits one of several"):
        engine.explain(several, found[0])


def test_a_picture_without_a_subject_stays_whole() -> None:
    picture = Query([np.zeros((90, 120, 3), np.uint8)], regions=[Subject()]).read(DecodeRules()).pictures[0]
    assert picture.seeks_subject
    for box in (None, (0.0, 0.0, 1.0, 1.0)):
        whole = cut_subject(picture, box)
        assert (whole.region, whole.image, whole.seeks_subject) == (None, picture.image, False)
    cut = cut_subject(picture, (0.5, 0.0, 0.25, 1.0))
    assert (cut.image.size, cut.width, cut.seeks_subject) == ((30, 90), 120, False)
