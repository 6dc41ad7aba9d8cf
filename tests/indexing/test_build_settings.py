"""Requests that a build refuses, and the settings that an index keeps."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from cli.advice import sentence_of
from index_store.layout import Layout
from retrieval.errors import IndexCorruptError, IndexIncompatibleError, IndexLockedError, UsageError
from retrieval.indexing.build import build_index
from retrieval.indexing.reports import BuildEvent
from retrieval.search.engine import Engine
from retrieval.settings import EngineSettings
from tests.indexing.builds import (
    REAL,
    build,
    files_of,
    real_build,
)
from tests.slices import loads_model_libraries
from tests.support.paths import DATA
from tests.support.sample_index import Contents, paint

TINY_SD15 = DATA / "tiny_sd15"


# --- Requests that make no sense


@pytest.mark.usefixtures("tiny")
def test_a_folder_without_images_or_that_is_not_there_is_refused(tmp_path: Path, index: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(UsageError, match="no images in"):
        build(tmp_path / "photos", index)
    with pytest.raises(UsageError, match="nowhere does not exist"):
        build(tmp_path / "nowhere", index)
    assert not index.exists()


@pytest.mark.usefixtures("tiny")
def test_a_place_that_is_no_index_is_left_alone(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.txt").write_text("years of work")
    (tmp_path / "file").write_text("years of work")
    for name in ("thesis", "file"):
        before = files_of(tmp_path)
        with pytest.raises(UsageError, match="is no index") as caught:
            build(photos, tmp_path / name)
        assert sentence_of(caught.value).endswith("; name another place with --index")
        assert files_of(tmp_path) == before
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["chapter1.txt"]
    (tmp_path / "empty").mkdir()
    assert build(photos, tmp_path / "empty").items == 11


@pytest.mark.usefixtures("tiny")
def test_a_refused_request_can_be_put_right(photos: Path, index: Path) -> None:
    with pytest.raises(UsageError, match="unknown mode 'stile'"):
        build(photos, index, modes=["stile"])
    assert build(photos, index).items == 11


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("stage", ["planned", "loaded", "encode", "commit"])
def test_a_second_build_is_refused_and_does_not_disturb_the_first(photos: Path, index: Path, stage: str) -> None:
    refused = []

    def another_build(event: BuildEvent) -> None:
        if event.stage == stage and not refused:
            for _ in range(2):
                with pytest.raises(IndexLockedError):
                    build(photos, index)
            refused.append(event)

    assert build(photos, index, on_progress=another_build).items == 11
    assert refused
    assert len(Contents.of(index).items) == 11


@pytest.mark.usefixtures("tiny")
def test_a_lost_current_is_never_taken_for_a_new_index(photos: Path, index: Path) -> None:
    build(photos, index)
    before = Contents.of(index)
    Layout(index).current.unlink()
    files = files_of(index)
    with pytest.raises(IndexCorruptError, match=r"CURRENT is missing.*000004\.json"):
        build(photos, index)
    assert files_of(index) == files
    Layout(index).current.write_text("000004.json")
    assert Contents.of(index) == before


# --- One index, one meaning


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"model": "sd15"}, "model: cells in the index, sd15 asked for"),
        ({"image_size": 128}, "image_size: 144 in the index, 128 asked for"),
        ({"parity": "published"}, "parity: sound in the index, published asked for"),
        ({"alpha": "drop"}, "alpha: white in the index, drop asked for"),
        ({"encoders": {}}, "encoders: descriptor in the index, none asked for"),
        ({"image_size": 64, "alpha": "drop"}, "alpha: white in the index, drop asked for; image_size: 144"),
    ],
    ids=str,
)
def test_other_choices_than_the_indexs_are_refused_with_both_sides(
    photos: Path, index: Path, choices: dict[str, Any], message: str
) -> None:
    build(photos, index)
    paint(photos, [11])
    files = files_of(index)
    with pytest.raises(IndexIncompatibleError) as caught:
        build(photos, index, **choices)
    assert message in str(caught.value)
    assert str(index) in str(caught.value)
    assert files_of(index) == files


@pytest.mark.usefixtures("tiny")
def test_a_mode_that_the_index_lacks_is_refused_by_a_search(photos: Path, index: Path) -> None:
    build(photos, index)
    with pytest.raises(IndexIncompatibleError, match="built for style, semantic, not for instance") as caught:
        Engine.open(index).search(photos / "000.png", "instance")
    assert f"diffsim-index build {photos} --modes instance --index {index}" in sentence_of(caught.value)
    with pytest.raises(UsageError, match="unknown mode 'stile'"):
        Engine.open(index).search(photos / "000.png", "stile")


def test_choices_that_are_left_out_are_the_indexs_own(photos: Path, tmp_path: Path) -> None:
    own = {"seed": 7, "image_size": 64, "alpha": "drop", "modes": ["semantic"], "noise": "pairwise"}
    real_build(photos, tmp_path / "whole.diffsim", **own)
    some = paint(tmp_path / "some", [0, 1])  # elsewhere, so that these two are twice in the grown index
    index = tmp_path / "grown.diffsim"
    build_index(some, index, model="cells", codec="qkv-float16", run=REAL, **own)
    build_index(photos, index, run=REAL)
    whole, grown = Contents.of(tmp_path / "whole.diffsim"), Contents.of(index)
    assert list(grown.tensors) == list(whole.tensors) == ["semantic/q", "semantic/k", "semantic/v"]
    for name, rows in whole.tensors.items():
        assert set(grown.tensors[name]) == set(rows)
    other = tmp_path / "other.diffsim"
    real_build(photos, other, **{**own, "image_size": 80})
    assert Contents.of(other).tensors != whole.tensors, "the size means something"


@loads_model_libraries
@pytest.mark.thorough
def test_other_weights_are_refused_wherever_they_lie(photos: Path, tmp_path: Path) -> None:
    index, own, copied, other = (tmp_path / name for name in ("x.diffsim", "own", "copied", "other"))
    for folder in (own, copied, other):
        shutil.copytree(TINY_SD15, folder)
    (file,) = (other / "unet").glob("*.safetensors")
    tensors = load_file(file)
    tensors[next(iter(tensors))][0] += 0.5
    save_file(tensors, file)

    sd15 = {"model": "sd15", "image_size": 64, "encoders": {"descriptor": None}}
    assert real_build(photos, index, weights=str(own), **sd15).items == 11
    query = paint(photos, [11])[0]
    both = r"model\.weights: [0-9a-f]{12}\.\.\. in the index, [0-9a-f]{12}\.\.\. asked for"
    with pytest.raises(IndexIncompatibleError, match=both):
        real_build(photos, index, weights=str(other), **sd15)
    with pytest.raises(IndexIncompatibleError, match=both):
        Engine.open(index, EngineSettings(device="cpu", weights=str(other))).search(query, "style")
    assert real_build(photos, index, weights=str(copied), **sd15).items == 12, "the same weights in another place"
    assert len(Engine.open(index, EngineSettings(device="cpu", weights=str(copied))).search(query, "style")) == 10

    shutil.copy(file, own / "unet")
    with pytest.raises(IndexIncompatibleError, match=both):
        Engine.open(index, EngineSettings(device="cpu")).search(query, "style")


def test_weights_for_a_model_that_has_none_are_refused(photos: Path, index: Path) -> None:
    none = f"cells has no weights: leave out the folder {TINY_SD15}"
    with pytest.raises(UsageError, match=none):
        real_build(photos, index, weights=str(TINY_SD15))
    assert not index.exists()
    real_build(photos, index)
    with pytest.raises(UsageError, match=none):
        Engine.open(index, EngineSettings(device="cpu", weights=str(TINY_SD15))).search(photos / "000.png", "style")


def test_the_batch_size_does_not_change_scores(photos: Path, tmp_path: Path) -> None:
    scores = []
    for size in (1, 3, 4, 11):
        index = tmp_path / f"{size}.diffsim"
        real_build(photos, index, replace(REAL, batch_size=size, segment_rows=100))
        results = Engine.open(index, EngineSettings(device="cpu")).search(
            photos / "002.png", "style", exhaustive=True, k=11
        )
        scores.append([result.score for result in sorted(results, key=lambda result: result.id)])
    assert len(scores[0]) == 11
    np.testing.assert_allclose(scores, [scores[0]] * 4, rtol=0, atol=1e-5)
