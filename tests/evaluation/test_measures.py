"""Measures against cases that were computed by hand, and against scikit-learn."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from retrieval.errors import UsageError
from retrieval.evaluation.benchmarks.own_data import load_videos
from retrieval.evaluation.feature_store import FeatureStore
from retrieval.evaluation.measures import (
    JudgedRanking,
    accuracy,
    decide,
    interval,
    rank_groups,
    retrieval_measures,
    variances,
)
from retrieval.evaluation.pairs import average_precision
from retrieval.evaluation.report import (
    as_markdown,
    trec_qrels,
    trec_run,
)
from retrieval.evaluation.runner import Run, run_bench
from retrieval.evaluation.triplets import Triplet, draw_triplets, read_groups
from retrieval.images.decoding import DecodeRules
from tests.support import bench_trees as trees


def test_retrieval_measures_are_those_computed_by_hand() -> None:
    def ranking(query: str, scores: list[float], relevant: list[int]) -> JudgedRanking:
        items = tuple(Path(f"{query}{i}") for i in range(len(scores)))
        return JudgedRanking(Path(query), items, np.array(scores, np.float32), np.array(relevant, bool))

    rankings = [
        ranking("a", [5, 4, 3, 2, 1], [1, 0, 1, 0, 0]),  # AP (1/1 + 2/3) / 2, P@4 2/4
        ranking("b", [5, 4, 3, 2, 1], [0, 0, 0, 0, 1]),  # AP 1/5, P@4 0
        ranking("c", [1, 2, 3, 4, 5], [0, 1, 0, 1, 0]),  # best first: 4 3 2 1 0; AP (1/2 + 2/4) / 2, P@4 2/4
    ]
    found = {m.measure: m.value for m in retrieval_measures("x", "y", rankings)}
    assert found["recall@1"] == pytest.approx(1 / 3)
    assert found["recall@4"] == pytest.approx(2 / 3)
    assert found["precision@4"] == pytest.approx((0.5 + 0 + 0.5) / 3)
    assert found["mAP"] == pytest.approx(((1 + 2 / 3) / 2 + 1 / 5 + 0.5) / 3)


def test_ties_count_half_and_intervals_are_wilsons(tmp_path: Path) -> None:
    for number, distance in enumerate((0, 1, 1)):
        trees.paint(tmp_path / f"{number}.png", 0, distance, number)
    triplet = Triplet(*(tmp_path / f"{number}.png" for number in range(3)))
    right = decide(FeatureStore(trees.Oracle(), DecodeRules()), [triplet])
    assert right.tolist() == [0.5]
    assert next(accuracy("x", "y", [triplet], right)).value == 0.5
    low, high = interval(0.9, 100)
    assert (round(low, 4), round(high, 4)) == (0.8256, 0.9448)
    assert interval(1.0, 24)[1] == pytest.approx(1.0)


def test_groups_rank_every_image_against_all_others(grown: Callable[[str], Path], tmp_path: Path) -> None:
    folder = grown("groups")
    rankings: list[JudgedRanking] = []
    work = Run({"oracle": trees.Oracle()}, on_rankings=lambda bench, metric, found, root: rankings.extend(found))
    found = {m.measure: m for m in run_bench("groups", folder, work)}
    assert found["triplet accuracy"].count == 2000
    assert {found[name].value for name in ("recall@1", "recall@4", "mAP")} == {1.0}
    assert found["precision@4"].value == 0.75  # three right ones are all there are
    assert found["mAP"].count == 96  # the image that is alone asks nothing, but is in the gallery
    assert all(len(ranking.items) == 96 and ranking.query not in ranking.items for ranking in rankings)
    lines = trec_run("oracle", rankings[:1], folder.resolve()).splitlines()
    assert lines[0].split() == ["000/0.png", "Q0", "000/1.png", "1", "-0", "oracle"]
    assert len(lines) == 96
    assert trec_qrels(rankings[:1], folder.resolve()).splitlines()[0] == "000/0.png 0 000/1.png 1"
    names = trec_run(
        "m", [JudgedRanking(Path("/d/a b.png"), (Path("/d/c.png"),), np.ones(1), np.ones(1, bool))], Path("/d")
    )
    assert names == "a%20b.png Q0 c.png 1 1 m\n"


def test_tiktok_is_the_mean_variance_of_scores_against_frame_0(tmp_path: Path) -> None:
    for frame, distance in enumerate((0, 2, 4)):
        trees.paint(tmp_path / "v1" / f"{frame}.png", 1, distance)
        trees.paint(tmp_path / "v2" / f"{frame}.png", 2, 7, frame)
    (found,) = variances("tiktok", "oracle", FeatureStore(trees.Oracle(), DecodeRules()), load_videos(tmp_path))
    assert (found.value, found.count) == (0.5, 2)  # scores -2, -4 have variance 1; a still video has none
    assert "5.000e-01" in as_markdown([found])


def test_pairs_are_measured_by_average_precision(tmp_path: Path) -> None:
    scores = np.array([0.9, 0.8, 0.7, 0.6])
    assert average_precision(scores, np.array([True, False, True, False])) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision(scores, np.array([True, True, False, False])) == 1.0
    assert average_precision(np.ones(4), np.array([True, False, False, False])) == 0.25  # no order, no luck
    for distance in range(4):
        trees.paint(tmp_path / f"{distance}.png", 1, distance)
    file = tmp_path / "pairs.csv"
    rows = ["0.png,1.png,1", "0.png,3.png,0", "0.png,2.png,1"]
    file.write_text("first,second,same\n" + "\n".join(rows) + "\n")
    (found,) = run_bench("pairs", file, Run({"oracle": trees.Oracle()}))
    assert (found.measure, found.value, found.count) == ("average precision", 1.0, 3)
    file.write_text("first,second,same\n" + rows[0] + "\n")
    with pytest.raises(UsageError, match="one kind only"):
        list(run_bench("pairs", file, Run({"oracle": trees.Oracle()})))
    file.write_text("first,second,same\n0.png,1.png,yes\n")
    with pytest.raises(UsageError, match="line 2: same is 'yes'"):
        list(run_bench("pairs", file, Run({"oracle": trees.Oracle()})))


def test_a_gallery_in_blocks_is_the_same_gallery(grown: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    groups = read_groups(grown("groups"))
    store = FeatureStore(trees.Guess(), DecodeRules())
    whole = list(rank_groups(store, groups))
    monkeypatch.setattr("retrieval.evaluation.measures.BLOCK_BYTES", 24 * 7)  # seven images of three int64
    parts = list(rank_groups(store, groups))
    assert all(np.array_equal(a.scores, b.scores) for a, b in zip(whole, parts, strict=True))


def test_every_image_is_ranked_and_encoded_once_for_each_role(grown: Callable[[str], Path]) -> None:
    encoded: list[int] = []

    class TwoRoles(trees.Oracle):
        one_role = False

        def encode(self, images: Any, role: Any) -> Any:
            encoded.append(len(images))
            return super().encode(images, role)

    store = FeatureStore(TwoRoles(), DecodeRules())
    groups = read_groups(grown("groups"))
    decide(store, draw_triplets(groups, 2000, 0))
    assert len(list(rank_groups(store, groups))) == 96
    assert sum(encoded) == 96 + 97  # queries, gallery: each once


@given(pairs=st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=1, max_size=40))
def test_average_precision_is_scikit_learns_for_any_scores_with_ties(pairs: list[tuple[int, bool]]) -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn (extra test) is not installed")
    scores = np.array([score for score, _ in pairs], np.float64) / 3
    same = np.array([same for _, same in pairs])
    assume(same.any())
    assert average_precision(scores, same) == pytest.approx(metrics.average_precision_score(same, scores), abs=1e-12)
