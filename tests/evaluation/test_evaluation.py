"""Benchmark protocols on synthetic trees, measures against hand-computed cases, reports, figures and sweeps."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from retrieval.errors import ImageError, NoSpaceError, UsageError
from retrieval.evaluation.benchmarks.own_data import load_videos
from retrieval.evaluation.benchmarks.paper import BenchOptions
from retrieval.evaluation.benchmarks.table import BENCHES, describe_bench
from retrieval.evaluation.candidate_recall import Recall, coarse_recall, index_recall
from retrieval.evaluation.feature_store import FeatureStore, available_memory
from retrieval.evaluation.measures import (
    Measurement,
    Ranking,
    accuracy,
    decide,
    interval,
    rank_groups,
    retrieval_measures,
    variances,
)
from retrieval.evaluation.pairs import average_precision
from retrieval.evaluation.report import (
    as_csv,
    as_markdown,
    beside_published,
    read_report,
    trec_qrels,
    trec_run,
    write_report,
)
from retrieval.evaluation.runner import Run, run_bench
from retrieval.evaluation.triplets import Triplet, draw_triplets, read_groups
from retrieval.images.decoding import DecodeRules
from retrieval.metrics.registry import load_metric
from tests.support import bench_trees as trees
from tests.support.paths import DATA

TINY_SD15 = str(DATA / "tiny_sd15")
TREES: dict[str, tuple[Callable[[Path], Any], int]] = {
    "sref": (trees.styles, 2000),
    "instantstyle": (trees.styles, 2000),
    "groups": (trees.styles, 2000),
    "ip": (trees.characters, 12 * 5),
    "cute": (trees.cute, 18 * 10),
    "tid2013": (trees.tid2013, 600),
    "nights": (trees.nights, 60),
    "dreambench++": (trees.dreambench, 2 * (5 + 3 * 4)),
    "votes": (trees.votes, 10),
    "levels": (trees.levels, 2 * (6 + 3)),
}


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A tree a layout, made when it is first asked for."""
    made: dict[Any, Path] = {}

    def grow(name: str) -> Path:
        plant = TREES[name][0]
        if plant not in made:
            made[plant] = tmp_path_factory.mktemp("tree")
            plant(made[plant])
        return made[plant]

    return grow


def relative(triplets: list[Triplet], root: Path) -> list[tuple[str, ...]]:
    return [tuple(p.relative_to(root).as_posix() for p in (t.reference, t.nearer, t.farther)) for t in triplets]


@pytest.mark.parametrize("name", TREES)
def test_each_protocol_gives_its_triplets_and_an_oracle_is_always_right(
    name: str, grown: Callable[[str], Path]
) -> None:
    triplets = describe_bench(name).load(grown(name), BenchOptions())
    assert len(triplets) == TREES[name][1]
    assert all(len({t.reference, t.nearer, t.farther}) == 3 for t in triplets)
    assert decide(FeatureStore(trees.Oracle(), DecodeRules()), triplets).mean() == 1.0
    guessed = decide(FeatureStore(trees.Guess(), DecodeRules()), triplets)
    low, high = interval(0.5, len(triplets))
    spread = 1.6 * (high - low) / 2  # about three standard deviations
    assert abs(guessed.mean() - 0.5) < spread


PINNED = [  # the first three of seed 2334
    ("019/3.png", "019/2.png", "010/3.png"),
    ("011/0.png", "011/3.png", "022/3.png"),
    ("017/0.png", "017/3.png", "018/1.png"),
]


class Backwards:
    """What os.scandir gives, the other way round."""

    def __init__(self, found: Any) -> None:
        self._entries = sorted(found, key=lambda entry: entry.name, reverse=True)

    def __enter__(self) -> "Backwards":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def __iter__(self) -> Iterator[Any]:
        return iter(self._entries)

    def close(self) -> None:
        pass


@pytest.mark.parametrize("name", TREES)
def test_the_order_of_a_directory_does_not_matter(
    name: str, grown: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = grown(name)
    forwards = describe_bench(name).load(folder, BenchOptions())
    scandir, listdir = os.scandir, os.listdir
    monkeypatch.setattr(os, "scandir", lambda *a: Backwards(scandir(*a)))
    monkeypatch.setattr(os, "listdir", lambda *a: sorted(listdir(*a), reverse=True))
    backwards = describe_bench(name).load(folder, BenchOptions())
    assert relative(forwards, folder.resolve() if name in ("sref", "instantstyle", "groups") else folder) == relative(
        backwards, folder.resolve() if name in ("sref", "instantstyle", "groups") else folder
    )
    assert backwards == forwards


def test_the_style_protocol_is_pinned(grown: Callable[[str], Path]) -> None:
    folder = grown("sref").resolve()
    drawn = relative(draw_triplets(read_groups(folder), 2000, 2334), folder)
    again = relative(draw_triplets(read_groups(folder), 3, 2334), folder)
    assert drawn[:3] == again
    assert again == PINNED
    assert relative(draw_triplets(read_groups(folder), 3, 1), folder) != again
    for reference, nearer, farther in drawn:
        assert reference.split("/")[0] == nearer.split("/")[0] != farther.split("/")[0]
    assert not [path for triplet in drawn for path in triplet if path.startswith("alone")]


def test_where_text_and_code_differ_both_can_be_had(grown: Callable[[str], Path]) -> None:
    paper = BenchOptions(variant="paper")
    nights = describe_bench("nights")
    assert len(nights.load(grown("nights"), BenchOptions())) == 60
    assert len(nights.load(grown("nights"), paper)) == 90
    tid = describe_bench("tid2013")
    assert tid.load(grown("tid2013"), BenchOptions())[0].farther.name == "i01_01_3.bmp"
    assert tid.load(grown("tid2013"), paper)[0].nearer.name == "i01_01_1.bmp"
    assert tid.load(grown("tid2013"), paper)[0].farther.name == "i01_01_5.bmp"
    with pytest.raises(UsageError, match="unknown variant"):
        BenchOptions(variant="text")  # type: ignore[arg-type]


def test_parts_are_reported_apart(grown: Callable[[str], Path]) -> None:
    found = list(run_bench("votes", grown("votes"), Run({"oracle": trees.Oracle()})))
    assert [(m.part, m.count, m.value) for m in found] == [
        ("", 10, 1.0),
        ("random (unbiased)", 4, 1.0),
        ("selected by the authors", 6, 1.0),
    ]


def test_a_csv_of_ones_own(tmp_path: Path) -> None:
    for group in range(3):
        for distance in range(3):
            trees.paint(tmp_path / f"{group}{distance}.png", group, distance)
    file = tmp_path / "mine.csv"
    file.write_text("part,reference,nearer,farther\neasy,00.png,01.png,12.png\nhard,00.png,02.png,01.png\n")
    found = list(run_bench("triplets", file, Run({"oracle": trees.Oracle()})))
    assert {m.part: m.value for m in found} == {"": 0.5, "easy": 1.0, "hard": 0.0}
    file.write_text("reference,nearer,farther\n00.png,01.png,99.png\n")
    with pytest.raises(UsageError, match=r"mine\.csv, line 2: .*99\.png does not exist"):
        list(run_bench("triplets", file, Run({"oracle": trees.Oracle()})))
    file.write_text("reference,near,farther\n")
    with pytest.raises(UsageError, match="has no column nearer; it has: reference, near, farther"):
        list(run_bench("triplets", file, Run({"oracle": trees.Oracle()})))


@pytest.mark.parametrize("name", [name for name in BENCHES if name != "triplets"])
def test_missing_data_and_wrong_layouts_are_one_clear_sentence(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is no folder|does not exist"):
        describe_bench(name).load(tmp_path / "none", BenchOptions())
    (tmp_path / "wrong" / "deep").mkdir(parents=True)
    (tmp_path / "wrong" / "deep" / "note.txt").write_text("no image")
    with pytest.raises(UsageError) as error:
        describe_bench(name).load(tmp_path / "wrong", BenchOptions())
    assert "wrong" in str(error.value)
    assert "\n" not in str(error.value)


def test_one_class_and_an_empty_group_are_told(tmp_path: Path) -> None:
    trees.paint(tmp_path / "only" / "a.png", 1)
    trees.paint(tmp_path / "only" / "b.png", 1)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"one group only \(only; no images in empty\)"):
        read_groups(tmp_path)
    trees.paint(tmp_path / "single" / "a.png", 2)
    with pytest.raises(UsageError, match="two groups of two or more images, and there are 1"):
        draw_triplets(read_groups(tmp_path), 10, 0)
    trees.paint(tmp_path / "single" / "b.png", 2)
    (tmp_path / "single" / "c.png").write_bytes(b"")
    with pytest.raises(ImageError, match=r"c\.png: is an empty file"):
        list(run_bench("groups", tmp_path, Run({"oracle": trees.Oracle()})))


def test_missing_files_of_a_benchmark_are_named(tmp_path: Path) -> None:
    trees.characters(tmp_path / "ip", 2)
    (tmp_path / "ip" / "c1" / "0.35.png").unlink()
    with pytest.raises(UsageError, match=r"c1/0\.35\.png is missing"):
        describe_bench("ip").load(tmp_path / "ip", BenchOptions())
    (tmp_path / "ip" / "original" / "c1.JPG").unlink()
    with pytest.raises(UsageError, match="no image c1"):
        describe_bench("ip").load(tmp_path / "ip", BenchOptions())
    trees.nights(tmp_path / "nights", 2, 2)
    (tmp_path / "nights" / "ref" / "000" / "3.png").unlink()
    with pytest.raises(UsageError, match=r"data\.csv names .*3\.png"):
        describe_bench("nights").load(tmp_path / "nights", BenchOptions())
    trees.cute(tmp_path / "cute", 1, 2)
    for path in (tmp_path / "cute" / "category0" / "object1" / "studio").iterdir():
        path.unlink()
    with pytest.raises(UsageError, match="holds no images, though object0 has that lighting"):
        describe_bench("cute").load(tmp_path / "cute", BenchOptions())


def test_measures_are_hand_computed() -> None:
    def ranking(query: str, scores: list[float], relevant: list[int]) -> Ranking:
        items = tuple(Path(f"{query}{i}") for i in range(len(scores)))
        return Ranking(Path(query), items, np.array(scores, np.float32), np.array(relevant, bool))

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
    rankings: list[Ranking] = []
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
    names = trec_run("m", [Ranking(Path("/d/a b.png"), (Path("/d/c.png"),), np.ones(1), np.ones(1, bool))], Path("/d"))
    assert names == "a%20b.png Q0 c.png 1 1 m\n"


def test_a_vote_beats_one_bad_member(grown: Callable[[str], Path]) -> None:
    metrics = {"a": trees.Oracle(), "b": trees.Oracle(), "guess": trees.Guess()}
    found = list(run_bench("ip", grown("ip"), Run(metrics, vote=True)))
    whole = {m.metric: m.value for m in found if not m.part}
    assert whole["a"] == whole["vote of 3"] == 1.0 > whole["guess"]
    with pytest.raises(UsageError, match="odd number"):
        Run({"a": trees.Oracle()}, vote=True)


def test_all_sets_of_a_folder_in_one_table(tmp_path: Path) -> None:
    trees.votes(tmp_path / "human")
    trees.levels(tmp_path / "lowlevel")
    trees.styles(tmp_path / "style", 4)
    found = list(run_bench("all", tmp_path, Run({"oracle": trees.Oracle(), "guess": trees.Guess()})))
    assert {m.bench for m in found} == {"human", "lowlevel", "style"}
    assert {m.value for m in found if m.metric == "oracle" and m.measure == "triplet accuracy"} == {1.0}
    text = as_markdown(found)
    assert "| benchmark | measure | n | oracle | guess |" in text
    assert "| human: random (unbiased) | triplet accuracy | 4 | 100.0 (51-100) |" in text
    with pytest.raises(UsageError, match="one folder a set"):
        list(run_bench("all", tmp_path / "none", Run({"oracle": trees.Oracle()})))


def test_tiktok_is_the_mean_variance_to_frame_0(tmp_path: Path) -> None:
    for frame, distance in enumerate((0, 2, 4)):
        trees.paint(tmp_path / "v1" / f"{frame}.png", 1, distance)
        trees.paint(tmp_path / "v2" / f"{frame}.png", 2, 7, frame)
    (found,) = variances("tiktok", "oracle", FeatureStore(trees.Oracle(), DecodeRules()), load_videos(tmp_path))
    assert (found.value, found.count) == (0.5, 2)  # scores -2, -4 have variance 1; a still video has none
    assert "5.000e-01" in as_markdown([found])


def test_just_noticeable_differences_are_an_average_precision(tmp_path: Path) -> None:
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


def test_features_are_kept_between_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trees.styles(tmp_path / "tree", 3)
    groups = read_groups(tmp_path / "tree")
    paths = [path for members in groups.values() for path in members]
    first = FeatureStore(trees.Oracle(), DecodeRules(), tmp_path / "cache")
    first.encode(paths[:7], "gallery")
    encoded: list[int] = []

    class Counting(trees.Oracle):
        def encode(self, images: Any, role: Any) -> Any:
            encoded.append(len(images))
            return super().encode(images, role)

        def fingerprint(self) -> dict[str, Any]:
            return {"name": "Oracle"}

    second = FeatureStore(Counting(), DecodeRules(), tmp_path / "cache")
    second.encode(paths, "query")
    assert sum(encoded) == len(paths) - 7
    second.encode(paths, "gallery")
    assert sum(encoded) == len(paths) - 7
    assert second.get(paths[:2], "query")["colour"].tolist() == first.get(paths[:2], "query")["colour"].tolist()
    assert len(list((tmp_path / "cache").iterdir())) == 1
    FeatureStore(trees.Guess(), DecodeRules(), tmp_path / "cache").encode(paths[:1], "query")
    assert len(list((tmp_path / "cache").iterdir())) == 2  # another metric, other features


def test_too_little_memory_is_told_with_the_way_out(
    grown: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = grown("groups")
    assert (available_memory() or 1e9) > 1e8
    monkeypatch.setattr("retrieval.evaluation.feature_store.available_memory", lambda: 1)
    with pytest.raises(NoSpaceError, match="keep them on disk instead, with --cache"):
        list(run_bench("groups", folder, Run({"oracle": trees.Oracle()})))
    kept = Run({"oracle": trees.Oracle()}, cache=tmp_path)
    assert next(run_bench("groups", folder, kept)).value == 1.0


def test_a_gallery_in_blocks_is_the_same_gallery(grown: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    groups = read_groups(grown("groups"))
    store = FeatureStore(trees.Guess(), DecodeRules())
    whole = list(rank_groups(store, groups))
    monkeypatch.setattr("retrieval.evaluation.measures.BLOCK_BYTES", 24 * 7)  # seven images of three int64
    parts = list(rank_groups(store, groups))
    assert all(np.array_equal(a.scores, b.scores) for a, b in zip(whole, parts, strict=True))


def test_reports_in_three_forms(tmp_path: Path) -> None:
    found = [
        Measurement("sref", "diffsim-s", "triplet accuracy", 0.9715, 2000, low=0.96, high=0.98),
        Measurement("sref", "mini", "triplet accuracy", 0.5, 2000),
    ]
    for suffix in ("csv", "json", "md"):
        write_report(tmp_path / f"r.{suffix}", found)
    assert read_report(tmp_path / "r.json") == found
    assert as_csv(found).splitlines()[1] == "sref,diffsim-s,triplet accuracy,0.9715,2000,,0.96,0.98"
    table = beside_published(found)
    assert "| DiffSim-S SD1.5 | 86.52 | 71.50 | 72.06 | 92.04 | 94.17 | 97.40 / 97.15 | 99.05 |" in table
    assert "| mini | - | - | - | - | - | - / 50.00 | - |" in table
    with pytest.raises(UsageError, match=r"\.csv, \.json, \.md"):
        write_report(tmp_path / "r.txt", found)
    with pytest.raises(UsageError, match="no JSON report"):
        read_report(tmp_path / "r.csv")


def test_a_figure_shows_the_query_and_its_neighbours(gallery: Path, tmp_path: Path) -> None:
    from retrieval.evaluation.figure import draw_figure

    metrics = {name: load_metric(name) for name in ("mini", "lab-hist", "ssim")}
    query = sorted(gallery.rglob("*.png"))[5]
    draw_figure(gallery, [query], tmp_path / "figure.png", Run(metrics))
    with Image.open(tmp_path / "figure.png") as picture:
        assert picture.width > 900
        assert picture.height > 600
    draw_figure(gallery, [query], tmp_path / "figure.html", Run(metrics), k=3)
    page = (tmp_path / "figure.html").read_text()
    assert page.count("<img") == 3 * 4
    with pytest.raises(UsageError, match="needs two images or more"):
        draw_figure(query, [query], tmp_path / "one.png", Run(metrics))


def test_a_sweep_finds_what_single_runs_find(gallery: Path, tmp_path: Path) -> None:
    from retrieval.drawing.heatmap import draw_heatmap, write_heatmap
    from retrieval.evaluation.sweep import sweep
    from retrieval.metrics.aas import ExtractorMetric
    from retrieval.metrics.base import MetricSettings

    settings = MetricSettings(weights=TINY_SD15, image_size=64)
    metric = load_metric("diffsim-s", settings)
    assert isinstance(metric, ExtractorMetric)
    options = BenchOptions(triplets=60)
    found = sweep("groups", gallery, metric, ["D_1", "M"], [701, 951], options)
    assert list(found) == [("D_1", 701), ("M", 701), ("D_1", 951), ("M", 951)]
    single = load_metric("diffsim-s", replace(settings, layer="M", denoising_step=701))
    alone = next(run_bench("groups", gallery, Run({"diffsim-s": single}, options)))
    assert found["M", 701].value == alone.value
    values = [[found[layer, step].value for step in (701, 951)] for layer in ("D_1", "M")]
    write_heatmap(tmp_path / "map.png", draw_heatmap(values, ["D_1", "M"], ["701", "951"], "diffsim-s"))
    assert (tmp_path / "map.png").stat().st_size > 1000
    with pytest.raises(UsageError, match=r"\.png"):
        write_heatmap(tmp_path / "map.jpg", draw_heatmap([[0.5]], ["a"], ["b"], "one"))


def test_a_sweep_that_was_stopped_goes_on(gallery: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from retrieval.evaluation.sweep import CELLS, FEATURES, sweep
    from retrieval.metrics.aas import ExtractorMetric
    from retrieval.metrics.base import MetricSettings

    metric = load_metric("diffsim-s", MetricSettings(weights=TINY_SD15, image_size=64, noise="shared"))
    assert isinstance(metric, ExtractorMetric)
    metric.batch_size = 8
    options, cache = BenchOptions(triplets=40), tmp_path / "cache"
    encoded: list[int] = []
    own = ExtractorMetric.encode_many

    def counted(self: ExtractorMetric, images: Any, *rest: Any) -> Any:
        encoded.append(len(images))
        return own(self, images, *rest)

    monkeypatch.setattr(ExtractorMetric, "encode_many", counted)
    whole = sweep("groups", gallery, metric, ["D_1", "M"], [701, 951], options)
    total = sum(encoded)

    def stop(task: str, done: int, count: int) -> None:
        if task.startswith("step 951") and done > 8:
            raise KeyboardInterrupt

    encoded.clear()
    with pytest.raises(KeyboardInterrupt):
        sweep("groups", gallery, metric, ["D_1", "M"], [701, 951], options, progress=stop, cache=cache)
    assert sum(encoded) == total // 2 + 16
    assert sweep("groups", gallery, metric, ["D_1", "M"], [701, 951], options, cache=cache) == whole
    assert sum(encoded) == total  # nothing twice
    assert not list((cache / FEATURES).iterdir())
    assert sweep("groups", gallery, metric, ["M"], [951], options, cache=cache)["M", 951] == whole["M", 951]
    assert sum(encoded) == total
    next(iter((cache / CELLS).iterdir())).write_text("{")
    with pytest.raises(UsageError, match=r"is damaged .*remove it"):
        sweep("groups", gallery, metric, ["D_1", "M"], [701, 951], options, cache=cache)


def test_nights_under_the_prompt_of_each_category(tmp_path: Path) -> None:
    from retrieval.metrics.base import MetricSettings

    trees.nights(tmp_path, test=0, val=6)
    rows = (tmp_path / "data.csv").read_text().replace(",cat\n", ",dog\n", 3)
    (tmp_path / "data.csv").write_text(rows)
    settings = MetricSettings(
        weights=TINY_SD15,
        image_size=64,
        layer="M",
        prompt="An image of a {category}",
    )
    metric = load_metric("diffsim-s", settings)
    (found,) = (m for m in run_bench("nights", tmp_path, Run({"diffsim-s": metric})) if not m.part)
    assert found.count == 6
    triplets = describe_bench("nights").load(tmp_path, BenchOptions())
    right = 0.0
    for category in ("cat", "dog"):
        own = load_metric("diffsim-s", replace(settings, prompt=f"An image of a {category}"))
        chosen = [triplet for triplet in triplets if triplet.category == category]
        assert len(chosen) == 3
        right += decide(FeatureStore(own, DecodeRules()), chosen).sum()
    assert found.value == right / 6
    both = metric.prompted(["An image of a cat", "An image of a dog"])
    assert both["An image of a dog"].fingerprint() == own.fingerprint()
    assert both["An image of a cat"].fingerprint() != own.fingerprint()
    trees.styles(tmp_path / "styles")
    with pytest.raises(UsageError, match=r"these triplets have none: only nights has"):
        list(run_bench("groups", tmp_path / "styles", Run({"diffsim-s": metric})))
    with pytest.raises(UsageError, match="takes no prompts of categories"):
        load_metric("mini").prompted(["a", "b"])


def assert_recall(found: list[Recall], k: int) -> None:
    """At 5, 10 and all 39 candidates."""
    assert [(row.k, row.candidates) for row in found] == [(k, 5), (k, 10), (k, 39)]
    for shares in ([row.recall for row in found], [row.whole for row in found]):
        assert shares == sorted(shares)
        assert shares[-1] == 1.0
    assert 0.1 < found[0].recall < 1.0
    assert found[0].whole < found[0].recall


def test_coarse_recall_of_an_encoder(gallery: Path) -> None:
    import torch

    from retrieval.models.registry import load_embedder

    encoder = load_embedder("descriptor", None, torch.device("cpu"), offline=True)
    run = Run({"mini": load_metric("mini")})
    found = coarse_recall(gallery, "mini", encoder, [5, 10, 39], run, k=5)
    assert_recall(found, 5)
    assert (found[0].of, found[0].queries) == ("mini", 40)


def test_coarse_recall_of_an_index(index: Path) -> None:
    from retrieval import Engine

    engine = Engine.open(index)
    found = index_recall(engine, [5, 10, 39], k=5, queries=8)
    assert {row.of for row in found} == set(engine.modes)
    assert {row.queries for row in found} == {8}
    for mode in engine.modes:
        assert_recall([row for row in found if row.of == mode], 5)


@pytest.mark.usefixtures("tiny")
def test_copies_of_the_query_are_not_what_the_coarse_stage_should_find(tmp_path: Path) -> None:
    """Of 24 images 20 are one: it has four others to be found. Where there is no other, nothing is to be measured."""
    from retrieval import Engine, build_index
    from tests.support.sample_index import RUN, paint

    only, *_ = paint(tmp_path / "images", range(1))
    for number in range(19):
        shutil.copy(only, tmp_path / "images" / f"copy {number}.png")
    build_index(tmp_path / "images", tmp_path / "t.diffsim", run=RUN, modes=["style"])
    with pytest.raises(UsageError, match="nothing but copies of one image"):
        index_recall(Engine.open(tmp_path / "t.diffsim"), [4], k=4)
    paint(tmp_path / "images", range(1, 5))
    build_index(tmp_path / "images", tmp_path / "t.diffsim", run=RUN)
    (found,) = index_recall(Engine.open(tmp_path / "t.diffsim"), [4], k=4)
    # For a copy all others are candidates; for one of the four there are as many copies as there is room for.
    assert found.queries == 24
    assert found.recall >= found.whole >= 20 / 24


def test_one_ranking_an_image_and_no_more_encoding_than_needed(grown: Callable[[str], Path]) -> None:
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


def test_published_numbers_have_a_row_for_every_paper_metric() -> None:
    from retrieval.evaluation.benchmarks.published import COLUMNS, PUBLISHED
    from retrieval.metrics.registry import METRICS

    assert {m.published_as for m in METRICS.values() if m.published_as} <= set(PUBLISHED)
    assert {bench.column for bench in BENCHES.values() if bench.column} == set(COLUMNS)
    assert PUBLISHED["DiffSim-S SD1.5"]["Sref"] == 97.40
    assert json.dumps({k: dict(v) for k, v in PUBLISHED.items()})
