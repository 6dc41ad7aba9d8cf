"""Several images as one question: scores follow the stated formula, and one image alone stays one image."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retrieval import Engine, Query
from retrieval.errors import UsageError
from retrieval.search.queries.combining import AWAY
from retrieval.search.results_sheet import BOARD_PX, CROSS, draw_results, sheet_rows
from retrieval.types import Combine
from tests.support.ranking import assert_same_ranking

EVERYTHING = {"k": 40, "exhaustive": True}


def scores(engine: Engine, query: Query, mode: str = "style") -> dict[int, float]:
    found = engine.search(query, mode, **EVERYTHING)  # type: ignore[arg-type]
    return {result.id: result.score for result in found if result.score is not None}


@pytest.mark.parametrize("combine", ["mean", "max", "union"])
def test_one_image_is_that_image(engine: Engine, files: list[Path], combine: Combine) -> None:
    alone = engine.search(files[0], "style", k=8, candidates=12)
    assert_same_ranking(engine.search(Query([files[0]], combine=combine), "style", k=8, candidates=12), alone)
    assert engine.search(Query([files[0]], combine=combine), "style").query == alone.query


def test_means_and_the_closest_follow_the_scores_of_single_images(engine: Engine, files: list[Path]) -> None:
    a, b, c = (scores(engine, Query([file])) for file in files[:3])
    mean = scores(engine, Query(files[:2], weights=[3, 1]))
    closest = scores(engine, Query(files[:2], combine="max"))
    away = scores(engine, Query(files[:1], minus=files[1:3], minus_weights=[1, 2]))
    assert len(mean) == len(closest) == len(away) == len(a) == 40
    for id in a:
        assert mean[id] == pytest.approx((3 * a[id] + b[id]) / 4, abs=1e-6)
        assert closest[id] == pytest.approx(max(a[id], b[id]), abs=1e-6)
        assert away[id] == pytest.approx(a[id] - AWAY * (b[id] + 2 * c[id]) / 2, abs=1e-6)


@pytest.mark.parametrize("combine", ["mean", "union"])
def test_order_does_not_matter_and_only_ratios_of_weights_do(
    engine: Engine, files: list[Path], combine: Combine
) -> None:
    first = scores(engine, Query(files[:3], weights=[1, 2, 3], combine=combine))
    turned = scores(engine, Query(files[:3][::-1], weights=[3, 2, 1], combine=combine))
    scaled = scores(engine, Query(files[:3], weights=[0.1, 0.2, 0.3], combine=combine))
    assert first == pytest.approx(turned, abs=1e-5)
    assert first == pytest.approx(scaled, abs=1e-5)
    plain = scores(engine, Query(files[:3], combine=combine))
    assert first != pytest.approx(plain, abs=1e-5)


def test_boards_and_single_images_are_searched_together(engine: Engine, files: list[Path]) -> None:
    asked = [files[0], Query(files[:3], combine="union"), Query(files[:2], minus=files[2:4]), files[4]]
    together = [found for _, found in engine.search_many(asked, "style", k=6, candidates=12)]
    for question, found in zip(asked, together, strict=True):
        assert_same_ranking(found, engine.search(question, "style", k=6, candidates=12))
    assert [entry["weight"] for entry in together[1].query["images"]] == [1.0, 1.0, 1.0]
    assert len(together[2].query["minus"]) == 2


def test_a_mean_finds_what_lies_between_and_an_image_moves_results_away(engine: Engine, files: list[Path]) -> None:
    near = engine.search(Query(files[:2]), "style", k=10, exclude_copies=True)
    assert {str(path) for path in files[:2]}.isdisjoint(result.path for result in near)
    toward = engine.search(files[0], "style", **EVERYTHING)  # type: ignore[arg-type]
    other = toward[1].path
    away = engine.search(Query([files[0]], minus=[other]), "style", **EVERYTHING)  # type: ignore[arg-type]
    rank = {result.path: result.rank for result in away}
    assert rank[other] > 2
    assert rank[str(files[0])] == 1 or rank[other] == 40


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"images": []}, "needs one image at least"),
        ({"images": ["a"] * 65}, "at most 64 images, not 65"),
        ({"images": ["a", "b"], "weights": [1]}, "1 weights were given for 2 images"),
        ({"images": ["a"], "weights": [0]}, "above 0, not 0"),
        ({"images": ["a"], "minus": ["b"], "minus_weights": [float("nan")]}, "above 0, not nan"),
        ({"images": ["a", "b"], "combine": "sum"}, "unknown way to combine 'sum'; known: mean, max, union"),
        ({"images": ["a", "b"], "weights": [1, 2], "combine": "max"}, "takes no weights"),
    ],
)
def test_wrong_questions_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Query(**wrong)  # type: ignore[arg-type]


def test_a_pair_is_not_a_board(engine: Engine, files: list[Path]) -> None:
    with pytest.raises(UsageError, match="a pair has one whole image on each side"):
        engine.score(Query(files[:2]), files[2])


def test_a_board_is_drawn_as_one_picture(engine: Engine, files: list[Path], tmp_path: Path) -> None:
    question = Query(files[:2], minus=files[2:3])
    found = engine.search(question, "style", k=4)
    (row,) = sheet_rows([found], question)
    assert isinstance(row.query.image, Image.Image)
    assert row.query.image.size == (BOARD_PX, BOARD_PX)
    red = (np.asarray(row.query.image) == CROSS).all(axis=2)
    assert red[BOARD_PX // 2 :, : BOARD_PX // 2].any()  # the third picture of a grid of two by two
    assert not red[: BOARD_PX // 2].any()
    draw_results(tmp_path / "sheet.png", [(question, found)])
    assert (tmp_path / "sheet.png").stat().st_size > 0
