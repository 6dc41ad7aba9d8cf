"""Tables of results that are made up: means over sets, the Pareto front, JSON that is read again."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.errors import UsageError
from retrieval.evaluation.comparison.report import as_markdown, draw_comparison, to_dict, write_file
from retrieval.evaluation.comparison.results import JudgedMode, MeasuredCost, SetResult, merged, read_results
from retrieval.evaluation.comparison.summary import COSTS, mode_rows, set_rows, sets_of_mode, undominated


def result(model: str, name: str, exact: float, ms: float = 10.0, images: int = 20, **others: Any) -> SetResult:
    judged = JudgedMode([2, 2], [2 * exact, 2 * exact], [exact, exact])  # the coarse stage is half as good
    cost = MeasuredCost(100.0, 1000.0, 10, {"style": ms}, 300.0)
    values = {"grey": False, "measure": "mAP", "cost": cost, "identity": "0", **others}
    return SetResult(model, name, images=images, queries=4, modes={"style": judged}, **values)


points = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=12)


@given(points)
def test_the_front_beats_everything_that_is_not_on_it(given_points: list[tuple[float, float]]) -> None:
    front = [point for point, on in zip(given_points, undominated(given_points), strict=True) if on]
    assert front
    for quality, cost in given_points:
        beaten_by = [(q, c) for q, c in front if q >= quality and c <= cost and (q, c) != (quality, cost)]
        assert ((quality, cost) in front) != bool(beaten_by)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["style_a", "style-b", "instance_c"], ["style_a", "style-b"]),
        (["stylish", "photos"], ["stylish", "photos"]),
        (["style"], ["style"]),
    ],
)
def test_sets_named_for_a_mode_count_for_it_alone(names: list[str], expected: list[str]) -> None:
    assert sets_of_mode("style", names) == expected


def test_a_model_is_best_unless_another_is_better_and_cheaper() -> None:
    found = [
        result("good", "photos", 0.8, ms=50),
        result("quick", "photos", 0.5, ms=5),
        result("beaten", "photos", 0.4, ms=6),
    ]
    best = {row.model: row.best for row in mode_rows(found, "search")}
    assert best == {"good": True, "quick": True, "beaten": False}
    assert [row.model for row in mode_rows(found, "bytes") if row.best] == ["good"]


def test_means_are_over_sets_and_costs_are_those_of_the_largest() -> None:
    found = [
        result("one", "a", 0.2, ms=3),
        result("one", "b", 0.6, ms=9, images=50),
        result("one", "b", 0.5, grey=True, cost=None),
        result("two", "a", 0.9),
    ]
    one, two = mode_rows(found, "search")
    assert one.quality.exact.value == pytest.approx(0.4)
    assert one.quality.coarse.value == pytest.approx(0.2)
    assert one.quality.gain.value == pytest.approx(0.2)
    assert one.cost.search_ms["style"] == 9
    assert one.grey is None, "the greyscale copies of set a were not measured"
    assert (two.sets, two.of_sets, two.best) == (("a",), 2, False), "one set of two can't be compared"
    assert "1 of 2" in as_markdown(found, "search")
    grey = [result("one", "a", 0.1, grey=True, cost=None)]
    row = mode_rows([*found, *grey], "search")[0]
    assert row.grey is not None
    assert row.grey.value == pytest.approx(0.3)
    assert [row.grey for row in set_rows(found)] == [False, False, False, True]


def test_json_is_read_again_and_gives_the_same_tables(tmp_path: Path) -> None:
    found = [result("one", "a", 0.1234567, measure="accuracy"), result("two", "a", 0.3)]
    write_file(tmp_path / "r.json", found, "search")
    again = read_results(tmp_path / "r.json")
    assert as_markdown(again, "search") == as_markdown(found, "search")
    assert to_dict(again, "bytes")["results"] == to_dict(found, "bytes")["results"]
    newer = result("two", "a", 0.9)
    assert merged(again, [newer]) == [again[0], newer]


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"measurements": []}', '{"results": [{"modes": {}}]}', '{"results": 3}'],
)
def test_other_files_are_one_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(UsageError, match="is not a JSON report of a comparison"):
        read_results(tmp_path / "r.json")
    with pytest.raises(UsageError, match="is not a JSON report of a comparison"):
        read_results(tmp_path / "missing.json")


@pytest.mark.parametrize("counts", [[], [1], [0, 2], [2, 2, 2]])
def test_counts_that_do_not_fit_their_sums_are_refused(tmp_path: Path, counts: list[int]) -> None:
    values = to_dict([result("one", "a", 0.5)], "search")
    values["results"][0]["modes"]["style"]["counts"] = counts
    (tmp_path / "r.json").write_text(json.dumps(values))
    with pytest.raises(UsageError, match="do not fit together"):
        read_results(tmp_path / "r.json")


@pytest.mark.parametrize("cost", COSTS)
def test_every_cost_can_be_drawn(cost: str) -> None:
    picture = draw_comparison([result("one", "a", 0.5), result("two", "a", 0.7, ms=900)], cost)
    assert picture.size[0] >= 460


def test_an_unknown_cost_and_an_empty_comparison_are_errors() -> None:
    with pytest.raises(UsageError, match="unknown cost 'money'; known: build, bytes, search, memory"):
        mode_rows([result("one", "a", 0.5)], "money")
    with pytest.raises(UsageError, match="nothing to draw"):
        draw_comparison([], "search")
    with pytest.raises(UsageError, match=r"must end in one of .json, .md"):
        write_file(Path("r.csv"), [], "search")
