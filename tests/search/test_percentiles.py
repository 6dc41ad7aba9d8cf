"""Percentiles in results, limits by them, two modes at once, and scaled orders, on the drawn gallery."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from index_store.reader import IndexReader
from retrieval import Box, Engine, Query, SearchSettings
from retrieval.calibration.upkeep import read_calibration
from retrieval.errors import UsageError
from retrieval.models.registry import describe_extractor
from retrieval.search.judging import UNLIKE_FROM, UNLIKE_STRENGTH
from retrieval.search.results import Results
from retrieval.search.scaling import NEIGHBOURS, WEIGHT

EVERYTHING: dict[str, Any] = {"k": 40, "exhaustive": True}


def test_results_carry_the_percentiles_of_their_scores(engine: Engine, index: Path, files: list[Path]) -> None:
    known = read_calibration(IndexReader(index), "style")
    assert known is not None
    found = engine.search(files[0], "style", **EVERYTHING)
    for result in found:
        assert result.score is not None
        assert result.percentile == pytest.approx(float(known.percentiles.percentiles(result.score)), abs=0.3)
        count = 1 / (1 - (result.percentile or 0) / 100)
        assert result.one_in == pytest.approx(count, abs=max(0.51, 0.06 * count))
    percentiles = [result.percentile for result in found]
    assert percentiles == sorted(percentiles, reverse=True)
    assert engine.percentile("style", 1.0) == pytest.approx(known.percentiles.most)
    assert found.to_dict()["results"][0]["percentile"] == percentiles[0]


def test_a_limit_leaves_out_what_random_pairs_reach(engine: Engine, files: list[Path]) -> None:
    whole = engine.search(files[0], "style", **EVERYTHING)
    few = engine.search(files[0], "style", min_percentile=80, **EVERYTHING)
    assert [r.id for r in few] == [r.id for r in whole if (r.percentile or 0) >= 80]
    assert 0 < len(few) < len(whole)


@pytest.mark.parametrize("choices", [{"rerank": False}, {"similarity": "mse"}], ids=str)
def test_other_numbers_than_exact_cosines_have_no_percentiles(
    engine: Engine, files: list[Path], choices: dict[str, Any]
) -> None:
    assert {result.percentile for result in engine.search(files[0], "style", **choices)} == {None}
    with pytest.raises(UsageError, match="exact cosine scores"):
        SearchSettings(min_percentile=90, **choices)
    with pytest.raises(UsageError, match="exact cosine scores"):
        SearchSettings(scaling="csls", **choices)


def test_boards_and_regions_have_none(engine: Engine, files: list[Path]) -> None:
    for query in (Query(files[:2]), Query(files[:1], minus=files[1:2]), Query(files[:1], regions=[Box(0, 0, 0.5, 1)])):
        assert {result.percentile for result in engine.search(query, "style")} == {None}
        with pytest.raises(UsageError, match="of one whole image"):
            engine.search(query, "style", min_percentile=90)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"min_percentile": 101}, "from 0 to 100"),
        ({"min_percentile": float("nan")}, "from 0 to 100"),
        ({"min_percentile": 99.999}, "out of reach"),
        ({"mode_weights": {"style": 1}}, "style is the mode of the search"),
        ({"mode_weights": {"instance": 0}}, "other than 0"),
        ({"mode_weights": {"nothing": 1}}, "unknown mode 'nothing'"),
        ({"mode_weights": {"instance": 1}, "scaling": "csls"}, "of one mode"),
        ({"scaling": "more"}, "unknown scaling"),
    ],
)
def test_wrong_choices_are_named(engine: Engine, files: list[Path], choices: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        engine.search(files[0], "style", **choices)


def by_id(found: Results) -> dict[int, float]:
    return {result.id: result.score for result in found if result.score is not None}


def test_a_wanted_mode_adds_its_evidence(engine: Engine, index: Path, files: list[Path]) -> None:
    style, instance = (read_calibration(IndexReader(index), mode) for mode in ("style", "instance"))
    assert style is not None
    assert instance is not None
    one, other = (by_id(engine.search(files[0], mode, **EVERYTHING)) for mode in ("style", "instance"))
    found = engine.search(files[0], "style", mode_weights={"instance": 0.3}, **EVERYTHING)
    for result in found:
        key = style.percentiles.evidence(one[result.id]) + 0.3 * instance.percentiles.evidence(other[result.id])
        assert result.order_key == pytest.approx(float(key), abs=1e-3)
        (beside,) = result.other_modes
        assert (beside.mode, beside.score) == ("instance", pytest.approx(other[result.id], abs=1e-5))
        assert result.score == pytest.approx(one[result.id], abs=1e-5)
    keys = [result.order_key for result in found]
    assert keys == sorted(keys, reverse=True)


def test_an_unwanted_mode_pushes_back_what_stands_out_in_it(engine: Engine, index: Path, files: list[Path]) -> None:
    style, instance = (read_calibration(IndexReader(index), mode) for mode in ("style", "instance"))
    assert style is not None
    assert instance is not None
    one, other = (by_id(engine.search(files[0], mode, **EVERYTHING)) for mode in ("style", "instance"))
    found = engine.search(files[0], "style", mode_weights={"instance": -2.0}, **EVERYTHING)
    main = style.percentiles.evidence([one[result.id] for result in found])
    beside = instance.percentiles.evidence([other[result.id] for result in found])
    slope, start = np.polyfit(main, beside, 1)
    residuals = beside - start - slope * main
    expected = main - 2 * UNLIKE_STRENGTH * np.maximum(0, residuals / residuals.std() - UNLIKE_FROM)
    assert [result.order_key for result in found] == pytest.approx(expected.tolist(), abs=1e-3)
    assert (main - expected).max() > 0.1  # something does stand out


def test_scaling_takes_off_half_of_how_near_a_candidate_is_to_its_neighbours(
    engine: Engine, index: Path, files: list[Path]
) -> None:
    reader = IndexReader(index)
    known = read_calibration(reader, "style")
    assert known is not None
    assert known.slope is not None
    plain = engine.search(files[0], "style", **EVERYTHING)
    found = engine.search(files[0], "style", scaling="csls", **EVERYTHING)
    assert plain[0].order_key is None
    assert by_id(found) == pytest.approx(by_id(plain), abs=1e-6)
    (encoder,) = describe_extractor("cells").modes["style"].encoders
    vectors = reader.vectors(encoder)
    for result in found:
        row = int(np.searchsorted(reader.ids, result.id))
        near = np.sort(np.delete(vectors @ vectors[row], row))[-NEIGHBOURS:].mean()
        assert result.score is not None
        assert result.order_key == pytest.approx(result.score - WEIGHT * known.slope * near, abs=1e-4)
    keys = [result.order_key or 0 for result in found]
    assert keys == sorted(keys, reverse=True)


def test_several_images_are_scaled_unless_somebody_says_otherwise(engine: Engine, files: list[Path]) -> None:
    board = Query(files[:3])
    scaled, chosen = (engine.search(board, "style", **each, **EVERYTHING) for each in ({}, {"scaling": "csls"}))
    assert [result.order_key for result in scaled] == [result.order_key for result in chosen] != [None] * 40
    plain = engine.search(board, "style", scaling="none", **EVERYTHING)
    assert {result.order_key for result in plain} == {None}
    assert {r.order_key for r in engine.search(board, "style", similarity="mse", **EVERYTHING)} == {None}
    assert {r.order_key for r in engine.search(Query(files[:1], minus=files[1:2]), "style")} == {None}
    whole = engine.search(board, "style")
    assert {result.id for result in whole[:5]} == {result.id for result in scaled[:5]}


def test_an_index_without_percentiles_says_so(
    engine: Engine, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retrieval.search.index_percentiles.read_calibration", lambda reader, mode: None)
    other = Engine(engine._reader, engine._settings, engine._load)
    assert other.info()["percentiles"] == {}
    assert other.search(files[0], "style")[0].percentile is None
    assert other.search(Query(files[:2]), "style")[0].order_key is None
    for choices in ({"min_percentile": 9}, {"scaling": "csls"}, {"mode_weights": {"instance": 1}}):
        with pytest.raises(UsageError, match="has no percentiles of style"):
            other.search(files[0], "style", **choices)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="has no percentiles"):
        other.percentile("style", 0.9)
