"""Percentiles in results, limits by them, two modes at once, and scaled orders, on the drawn gallery."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from index_store.reader import IndexReader
from retrieval import Box, Engine, Query, SearchSettings
from retrieval.calibration.upkeep import read_calibration
from retrieval.errors import UsageError
from retrieval.models.registry import describe_extractor
from retrieval.search import question_percentiles
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


OTHER_QUESTIONS: dict[str, dict[str, Any]] = {
    "board": {"weights": [2, 1]},
    "union": {"combine": "union"},
    "moved away": {"minus": [2]},
    "region": {"regions": [Box(0, 0, 0.5, 1), None]},
}


@pytest.mark.parametrize("kind", OTHER_QUESTIONS)
def test_boards_and_regions_are_compared_with_random_images_where_a_search_needs_it(
    kind: str, engine: Engine, files: list[Path]
) -> None:
    """Of 40 images the sample are all others than those that ask."""
    choices = {name: [files[at] for at in value] if name == "minus" else value
               for name, value in OTHER_QUESTIONS[kind].items()}  # fmt: skip
    query = Query(files[:2], **choices)
    plain = engine.search(query, "style", scaling="none", **EVERYTHING)
    assert {result.percentile for result in plain} == {None}
    found = engine.search(query, "style", scaling="none", min_percentile=0, **EVERYTHING)
    assert [(r.id, r.score) for r in found] == [(r.id, pytest.approx(r.score, abs=1e-6)) for r in plain]
    itself = {str(path) for path in (*files[:2], *query.minus)}
    others = np.array([result.score for result in plain if result.path not in itself])
    for result in found:
        lower, equal = (others < result.score - 1e-6).sum(), (np.abs(others - result.score) <= 1e-6).sum()
        share = (lower + equal / 2) / len(others)
        assert result.percentile == pytest.approx(100 * min(share, 1 - 1 / len(others)), abs=1e-3)
    (note,) = [note for note in found.notes if note.kind == "sampled_percentiles"]
    assert note.facts == {"images": len(others)}
    few = engine.search(query, "style", scaling="none", min_percentile=90, **EVERYTHING)
    assert [r.id for r in few] == [r.id for r in found if (r.percentile or 0) >= 90]
    with pytest.raises(UsageError, match=f"one of {len(others)} random images is left: 99.9 is out of reach"):
        engine.search(query, "style", min_percentile=99.9)


def test_a_region_is_weighed_in_two_modes(engine: Engine, files: list[Path]) -> None:
    region = Query(files[:1], regions=[Box(0, 0, 0.5, 1)])
    found = engine.search(region, "style", mode_weights={"instance": 0.5}, **EVERYTHING)
    alone = by_id(engine.search(region, "instance", **EVERYTHING))
    for result in found:
        (beside,) = result.other_modes
        assert beside.score == pytest.approx(alone[result.id], abs=1e-5)
        assert result.percentile is not None
    keys = [result.order_key for result in found]
    assert keys == sorted(keys, reverse=True)


def test_an_index_without_pairs_takes_random_images_for_any_question(
    index: Path, files: list[Path], tmp_path: Path
) -> None:
    """As one in an object store has none."""
    copy = shutil.copytree(index, tmp_path / "copy.diffsim")
    for file in copy.rglob("*.scores"):
        file.unlink()
    engine = Engine.open(copy)
    assert {result.percentile for result in engine.search(files[0], "style")} == {None}
    found = engine.search(files[0], "style", min_percentile=0, **EVERYTHING)
    scores = np.array([result.score for result in found if result.path != str(files[0])])
    assert found[5].percentile == pytest.approx(100 * (scores < found[5].score).mean(), abs=2)


def test_a_sample_is_bounded_by_images_and_bytes(
    engine: Engine, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    judges = engine._answerer._judges
    query, wanted = engine.read_query(Query(files[:2])), SearchSettings(min_percentile=50)
    assert len(judges.sample(query, "style", SearchSettings())) == 0
    monkeypatch.setattr(question_percentiles, "IMAGES", 35)
    assert len(judges.sample(query, "style", wanted)) == 35
    asking = {index for index, path in enumerate(engine.paths()) if path in {str(file) for file in files[:2]}}
    assert asking.isdisjoint(judges.sample(query, "style", wanted).tolist())
    monkeypatch.setattr(question_percentiles, "MOST_BYTES", 1)
    assert len(judges.sample(query, "style", wanted)) == 32


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
    pushed = 0.0
    for query in files[::3]:
        one, other = (by_id(engine.search(query, mode, **EVERYTHING)) for mode in ("style", "instance"))
        found = engine.search(query, "style", mode_weights={"instance": -2.0}, **EVERYTHING)
        main = style.percentiles.evidence([one[result.id] for result in found])
        beside = instance.percentiles.evidence([other[result.id] for result in found])
        slope, start = np.polyfit(main, beside, 1)
        residuals = beside - start - slope * main
        expected = main - 2 * UNLIKE_STRENGTH * np.maximum(0, residuals / residuals.std() - UNLIKE_FROM)
        assert [result.order_key for result in found] == pytest.approx(expected.tolist(), abs=1e-3)
        pushed = max(pushed, float((main - expected).max()))
    assert pushed > 0.1  # something does stand out


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
    assert engine.percentile("style", 0.9) > 0  # it knows its own from here on
    monkeypatch.setattr("retrieval.search.index_percentiles.read_calibration", lambda reader, mode: None)
    other = Engine(engine._reader, engine._settings, engine._load)
    assert other.info()["percentiles"] == {}
    assert other.search(files[0], "style")[0].percentile is None
    assert other.search(Query(files[:2]), "style")[0].order_key is None
    with pytest.raises(UsageError, match="has no percentiles of style"):
        other.search(files[0], "style", scaling="csls")
    monkeypatch.setattr(question_percentiles, "LEAST_IMAGES", 50)
    for choices in ({"min_percentile": 9}, {"mode_weights": {"instance": 1}}):
        with pytest.raises(UsageError, match="has no percentiles of style"):
            other.search(files[0], "style", **choices)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="no percentiles of this question: they need the stored tensors of 50 other"):
        engine.search(Query(files[:2]), "style", min_percentile=9)
    with pytest.raises(UsageError, match="has no percentiles"):
        other.percentile("style", 0.9)
