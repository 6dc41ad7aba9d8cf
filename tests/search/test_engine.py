"""The engine on a drawn gallery and the embedded model, and on the tiny Stable Diffusion."""

import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cli.advice import sentence_of
from retrieval import Engine, EngineSettings, build_index
from retrieval.errors import ImageError, IndexIncompatibleError, UsageError
from retrieval.sample_images.pictures import MOTIFS, STYLES
from retrieval.search.results import Result
from retrieval.settings import SearchChoices
from tests.slices import loads_model_libraries
from tests.support.paths import DATA
from tests.support.ranking import assert_same_ranking
from tests.support.sample_index import RUN, paint

TINY = DATA / "tiny_sd15"


@pytest.fixture
def engine(index: Path) -> Engine:
    """A new one for each test: candidates in memory must not decide what another test sees."""
    return Engine.open(index)


def test_every_mode_answers_and_puts_the_query_first(engine: Engine, gallery: Path) -> None:
    query = gallery / STYLES[0] / f"{MOTIFS[2]}.png"
    for mode in ("style", "instance", "semantic"):
        results = engine.search(query, mode, k=5)
        assert [result.rank for result in results] == [1, 2, 3, 4, 5]
        assert results[0].path == str(query)
        assert results[0].score == pytest.approx(1.0, abs=1e-3)  # float16 storage
        scores = [result.score or 0.0 for result in results]
        assert scores == sorted(scores, reverse=True)


def test_style_mode_prefers_the_querys_style(engine: Engine, gallery: Path) -> None:
    """Chance would be 7 of 39."""
    hits = [
        Path(result.path).parent.name == style
        for style in STYLES[:5]
        for result in engine.search(gallery / style / f"{MOTIFS[0]}.png", "style", k=4, exclude_copies=True)
    ]
    assert np.mean(hits) > 0.5


def test_enough_candidates_equal_an_exhaustive_search(engine: Engine, gallery: Path) -> None:
    query = gallery / STYLES[1] / f"{MOTIFS[1]}.png"
    few, all_of_them = engine.search(query, candidates=40, k=40), engine.search(query, exhaustive=True, k=40)
    assert_same_ranking(few, all_of_them, whole=True)
    assert all(r.coarse_rank is None for r in all_of_them)
    assert sorted(r.coarse_rank or 0 for r in few) == list(range(1, 41))


def test_the_coarse_ranking_alone(engine: Engine, gallery: Path) -> None:
    results = engine.search(gallery / STYLES[1] / f"{MOTIFS[1]}.png", rerank=False, k=6)
    assert [r.coarse_rank for r in results] == [1, 2, 3, 4, 5, 6]
    assert all(r.score is None for r in results)
    cosines = [r.coarse_score or 0.0 for r in results]
    assert cosines == sorted(cosines, reverse=True)


def test_scores_are_those_of_single_pairs(engine: Engine, gallery: Path) -> None:
    query = gallery / STYLES[2] / f"{MOTIFS[3]}.png"
    for result in engine.search(query, "instance", k=4):
        assert engine.score(query, result.path, "instance") == pytest.approx(result.score, abs=1e-3)


def test_mse_orders_the_other_way_and_starts_at_zero(engine: Engine, gallery: Path) -> None:
    query = gallery / STYLES[0] / f"{MOTIFS[0]}.png"
    results = engine.search(query, similarity="mse", k=40)
    scores = [r.score or 0.0 for r in results]
    assert scores == sorted(scores)
    assert str(query) in [r.path for r in results if (r.score or 0.0) <= scores[0] + 1e-6]
    between, count = widest_gap(scores)
    assert len(engine.search(query, similarity="mse", k=40, min_score=between)) == count


def widest_gap(scores: list[float]) -> tuple[float, int]:
    """A number half-way between two neighbours of a ranking that differ clearly, and how many come before it."""
    gaps = [abs(after - before) for before, after in pairwise(scores[3:21])]
    count = 4 + int(np.argmax(gaps))
    assert gaps[count - 4] > 1e-4
    return (scores[count - 1] + scores[count]) / 2, count


def test_a_least_score_and_leaving_the_query_out(engine: Engine, gallery: Path, tmp_path: Path) -> None:
    query = gallery / STYLES[0] / f"{MOTIFS[0]}.png"
    everything = engine.search(query, k=40)
    between, count = widest_gap([r.score or 0.0 for r in everything])
    assert len(engine.search(query, k=40, min_score=between)) == count
    copy = tmp_path / "copy.png"
    shutil.copy(query, copy)
    without = engine.search(copy, k=39, exclude_copies=True)
    assert str(query) not in [r.path for r in without]
    assert_same_ranking(without, [r for r in everything if r.path != str(query)], whole=True)


@pytest.mark.usefixtures("tiny")
def test_leaving_the_item_out_keeps_its_copies(tmp_path: Path) -> None:
    files = paint(tmp_path / "images", range(6))
    shutil.copy(files[0], tmp_path / "images" / "copy.png")
    build_index(tmp_path / "images", tmp_path / "i.diffsim", run=RUN)
    engine = Engine.open(tmp_path / "i.diffsim", EngineSettings(device="cpu"))
    without = {name: engine.search(files[0], k=7, **{name: True}) for name in ("exclude_self", "exclude_copies")}
    names = {name: {Path(result.path).name for result in found} for name, found in without.items()}
    assert names["exclude_self"] == {"copy.png", *(file.name for file in files[1:])}
    assert names["exclude_copies"] == {file.name for file in files[1:]}
    shutil.copy(files[0], tmp_path / "elsewhere.png")
    assert len(engine.search(tmp_path / "elsewhere.png", k=7, exclude_self=True)) == 7


@pytest.mark.usefixtures("tiny")
def test_leaving_the_query_out_is_searching_an_index_without_its_copies(tmp_path: Path) -> None:
    """However many copies there are, and however few candidates."""
    others = paint(tmp_path / "images", range(11))
    build_index(tmp_path / "images", tmp_path / "without.diffsim", run=RUN)
    query = paint(tmp_path / "query", ["query.png"])[0]
    for number in range(31):
        shutil.copy(query, tmp_path / "images" / f"copy {number}.png")
    build_index(tmp_path / "images", tmp_path / "with.diffsim", run=RUN)
    wanted: list[SearchChoices] = [{}, {"exhaustive": True}, {"rerank": False}, {"candidates": 5, "k": 5}]

    def results(name: str, choices: SearchChoices) -> list[Result]:
        found = Engine.open(tmp_path / f"{name}.diffsim").search(query, exclude_copies=True, **choices)
        return [replace(result, id=others.index(Path(result.path))) for result in found]

    for choices in wanted:
        found, expected = results("with", choices), results("without", choices)
        assert_same_ranking(found, expected)
        assert {r.id: r.coarse_rank for r in found} == {r.id: r.coarse_rank for r in expected}
        assert len(found) == choices.get("k", 10)
    assert len(results("with", {"k": 40})) == len(others)


@pytest.mark.usefixtures("tiny")
def test_an_image_without_a_vector_is_found_exhaustively_alone(tmp_path: Path) -> None:
    """Its file was out of reach when the encoder of another mode was added."""
    query = paint(tmp_path / "photos", range(6))[2]
    index = tmp_path / "t.diffsim"
    build_index(tmp_path / "photos", index, run=RUN, modes=["style"])
    away = (tmp_path / "photos").rename(tmp_path / "away")
    here = paint(tmp_path / "other", ["new.png"])[0]
    build_index(tmp_path / "other", index, run=RUN, modes=["instance"])
    found = Engine.open(index).search(away / query.name, "instance", rerank=False, k=7)
    assert [result.path for result in found] == [str(here)]
    assert [(note.kind, note.advice, note.facts) for note in found.notes] == [
        ("without_vector", "search-exhaustively", {"images": 6})
    ]
    assert str(found.notes[0]) == "6 images have no vector to be found by, so a search may miss them"
    away.rename(tmp_path / "photos")
    assert len(Engine.open(index).search(query, "instance", exhaustive=True, k=7)) == 7


def test_paths_bytes_pictures_arrays_and_queries_are_one_query(engine: Engine, gallery: Path) -> None:
    path = gallery / STYLES[0] / f"{MOTIFS[4]}.png"
    picture = Image.open(path)
    forms = [path, str(path), path.read_bytes(), picture, np.asarray(picture), engine.read_query(path)]
    answers = [engine.search(form, k=6) for form in forms]
    for answer in answers:
        assert_same_ranking(answer, answers[0])
    assert answers[0].query == answers[-1].query
    assert engine.score(forms[-1], forms[2]) == pytest.approx(engine.score(path, path), abs=1e-6)


def test_many_queries_get_the_results_of_single_searches(
    engine: Engine, gallery: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retrieval.search.engine.QUERIES_AT_ONCE", 3)
    files = sorted(gallery.rglob("*.png"))[::6]
    assert len(files) == 7
    for mode in engine.modes:
        together = list(engine.search_many(files, mode, candidates=9, k=5))
        assert [query for query, _ in together] == files
        for query, found in together:
            alone = engine.search(query, mode, candidates=9, k=5)
            assert_same_ranking(found, alone)
            assert found.query == alone.query


def test_a_query_that_is_no_image_is_told_and_passed_over(engine: Engine, gallery: Path, tmp_path: Path) -> None:
    good, bad = gallery / STYLES[0] / f"{MOTIFS[0]}.png", tmp_path / "broken.png"
    bad.write_bytes(b"no image")
    refused: list[object] = []
    found = list(engine.search_many([bad, good, bad], k=1, on_unusable=lambda query, error: refused.append(query)))
    assert [query for query, _ in found] == [good]
    assert refused == [bad, bad]
    with pytest.raises(ImageError, match=r"broken\.png"):
        list(engine.search_many([good, bad]))
    assert list(engine.search_many([])) == []


def test_an_item_is_found_by_id_and_by_the_end_of_its_path(engine: Engine, gallery: Path) -> None:
    name = f"{STYLES[3]}/{MOTIFS[5]}.png"
    path = gallery / name
    found = engine.search(path, k=1)[0]
    assert engine.locate(name) == engine.locate(f"id:{found.id}") == path
    assert engine.locate(str(path)) == str(path)
    with pytest.raises(UsageError, match="fits 5 items"):
        engine.locate(f"{MOTIFS[5]}.png")
    with pytest.raises(UsageError, match="no such file, and no item"):
        engine.locate("nothing.png")
    with pytest.raises(UsageError, match="no such file"):
        engine.locate("id:4000")


def test_bad_requests_are_refused(engine: Engine, gallery: Path, tmp_path: Path) -> None:
    query = gallery / STYLES[0] / f"{MOTIFS[0]}.png"
    with pytest.raises(UsageError, match="unknown mode 'stile'; this index has: style, instance, semantic"):
        engine.search(query, "stile")
    with pytest.raises(UsageError, match="k must be at least 1"):
        engine.search(query, k=0)
    with pytest.raises(UsageError, match="exclude each other"):
        engine.search(query, exhaustive=True, rerank=False)
    with pytest.raises(UsageError, match="unknown similarity"):
        engine.search(query, similarity="euclid")  # type: ignore[typeddict-item]
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"broken\.jpg"):
        engine.search(broken)
    with pytest.raises(UsageError, match="uint8"):
        engine.search(np.zeros((4, 4)))


def test_a_mode_that_the_index_lacks_says_how_to_get_it(gallery: Path, tmp_path: Path) -> None:
    build_index(gallery / STYLES[0], tmp_path / "a.diffsim", model="cells", modes=["style"])
    with pytest.raises(IndexIncompatibleError, match="was built for style, not for instance") as caught:
        Engine.open(tmp_path / "a.diffsim").search(gallery / STYLES[0] / f"{MOTIFS[0]}.png", "instance")
    assert re.search(r"diffsim-index build .* --modes instance --index", sentence_of(caught.value))


@pytest.mark.parametrize("cores", [1, 3])
def test_many_threads_get_the_same_answers_on_any_number_of_cores(index: Path, gallery: Path, cores: int) -> None:
    engine = Engine.open(index)
    queries = [gallery / style / f"{motif}.png" for style in STYLES[:2] for motif in MOTIFS]
    alone = [engine.search(query, k=4) for query in queries]
    torch.set_num_threads(cores)  # tests/conftest.py sets it back
    fresh = Engine.open(index)
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda query: fresh.search(query, k=4), queries))
    for found, expected in zip(together, alone, strict=True):
        assert_same_ranking(found, expected)


def test_results_are_plain_values_and_html(engine: Engine, gallery: Path) -> None:
    results = engine.search(gallery / STYLES[0] / f"{MOTIFS[0]}.png", "semantic", k=2)
    values = results.to_dict()
    counts = ["computed", "cached", "left_out"]
    names = ["schema", "index", "query", "mode", "filter", "timing_ms", *counts, "notes", "results"]
    assert list(values) == names
    assert [values[name] for name in counts] == [0, 0, 0]
    assert values["index"]["model"] == "cells"
    assert set(values["timing_ms"]) == {"embed", "coarse", "read", "rerank", "compute", "total"}
    assert "not meaning" in values["notes"][0]
    assert f"{MOTIFS[0]}.png" in results._repr_html_()
    assert len(results[:1]) == 1


@loads_model_libraries
@pytest.mark.thorough
def test_sd15_end_to_end_with_pairwise_noise(tmp_path: Path) -> None:
    images = DATA / "golden_images"
    index = tmp_path / "g.diffsim"
    options = {"model": "sd15", "weights": str(TINY), "image_size": 128, "encoders": {}, "alpha": "drop"}
    build_index(images, index, modes=["style", "instance"], **options)  # type: ignore[arg-type]
    engine = Engine.open(index)
    first, second = sorted(images.glob("*.png"))[:2]
    results = engine.search(first, "style", k=6)
    assert {Path(r.path) for r in results} == set(images.glob("*.png"))
    by_path = {Path(r.path): r.score for r in results}
    assert by_path[first] < 1.0 - 1e-6  # query and gallery have different noise, as published
    assert engine.score(first, second, "style") == pytest.approx(by_path[second], abs=1e-4)
    assert engine.search(first, "instance", k=6)[0].score != results[0].score
    with pytest.raises(UsageError, match="no coarse ranking"):
        engine.search(first, rerank=False)

    moved = tmp_path / "elsewhere"
    shutil.copytree(TINY, moved)
    again = Engine.open(index, EngineSettings(weights=str(moved))).search(first, "style", k=6)
    assert_same_ranking(again, results, whole=True)

    other = moved / "unet" / "diffusion_pytorch_model.safetensors"
    data = bytearray(other.read_bytes())
    data[-1] ^= 1
    other.write_bytes(bytes(data))
    with pytest.raises(IndexIncompatibleError, match=r"model\.weights: .* in the index"):
        Engine.open(index, replace(EngineSettings(), weights=str(moved))).search(first)
