"""``diffsim-eval`` from the command line, run in this process: its start is measured in test_project."""

import json
import sys
from pathlib import Path

import pytest

from retrieval.sample_images.pictures import MOTIFS, STYLES
from tests.slices import loads_model_libraries
from tests.support import bench_trees as trees
from tests.support.paths import DATA


class Ran:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    def failure(self, code: int) -> str:
        assert self.code == code, self.err
        assert "Traceback" not in self.err
        (line,) = [line for line in self.err.splitlines() if line.startswith("error: ")]
        return line


@pytest.fixture
def evaluate(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    from cli.eval_command import main

    def run(*words: str | Path) -> Ran:
        monkeypatch.setattr(sys, "argv", ["diffsim-eval", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        shown = capsys.readouterr()
        return Ran(int(ended.value.code or 0), shown.out, shown.err)

    return run


def test_list_names_every_metric_and_benchmark(evaluate) -> None:  # type: ignore[no-untyped-def]
    shown = evaluate("list").out
    for word in ("diffsim-s", "4267 MB", "CC-BY-NC-4.0", "dreambench++", "tiktok"):
        assert word in shown
    listed = json.loads(evaluate("list", "--json").out)
    assert {"name", "licence", "download_mb"} <= set(listed["metrics"][0])
    assert "nights" in [bench["name"] for bench in listed["benches"]]


def test_one_pair_is_scored(evaluate, gallery: Path) -> None:  # type: ignore[no-untyped-def]
    a, b = (gallery / STYLES[0] / f"{motif}.png" for motif in MOTIFS[:2])
    shown = json.loads(evaluate("score", a, b, "-m", "cells,ssim", "--json").out)["metrics"]
    assert -1 <= shown["cells"]["score"] <= 1
    assert shown["ssim"]["higher_is_closer"]
    text = evaluate("score", a, a, "-m", "cells", "--similarity", "mse").out
    assert "0.000000  (lower is closer)" in text


def test_a_benchmark_of_groups_writes_reports_and_trec_files(evaluate, gallery: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    out = [tmp_path / f"report.{suffix}" for suffix in ("csv", "json", "md")]
    words = [word for file in out for word in ("--out", file)]
    ran = evaluate(
        *("bench", "groups", gallery, "-m", "cells,lab-hist,rgb-hist", "--ensemble", "--triplets", "50"),
        *("--trec", tmp_path / "trec", "--cache", tmp_path / "cache", *words),
    )
    assert ran.code == 0, ran.err
    assert "| groups | triplet accuracy | 50 |" in ran.out
    assert "vote of 3" in ran.out
    assert out[2].read_text() == ran.out
    assert (tmp_path / "trec" / "groups" / "cells.run").read_text().count("\n") == 40 * 39
    assert (tmp_path / "trec" / "groups" / "qrels").read_text().count("\n") == 40 * 7
    beside = evaluate("table", out[1]).out
    assert "| DiffSim-S SD1.5 |" in beside


def test_a_benchmark_of_the_paper_takes_its_data_by_option(evaluate, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    trees.characters(tmp_path / "ip", 2)
    ran = evaluate("bench", "ip", "--data", tmp_path / "ip", "--metric", "rgb-hist", "--json", "--quiet")
    whole = json.loads(ran.out)["measurements"][0]
    assert (whole["bench"], whole["count"]) == ("ip", 10)
    assert "needs its data once" in evaluate("bench", "ip", "--metric", "rgb-hist").failure(2)


def test_wrong_requests_end_in_one_sentence(evaluate, gallery: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    assert "known: diffsim-s, mini" in evaluate("score", "a", "b", "-m", "diffsim").failure(2)
    assert "unknown benchmark 'cifar'" in evaluate("bench", "cifar", gallery, "-m", "cells").failure(2)
    assert "a.png: no such file" in evaluate("score", "a.png", "b.png", "-m", "cells").failure(1)
    assert "x does not exist: one folder for each group is expected there" in evaluate(
        "bench", "sref", "--data", tmp_path / "x", "-m", "cells"
    ).failure(2)
    assert "must end in" in evaluate("bench", "groups", gallery, "-m", "cells", "-o", "r.txt").failure(2)
    assert "is not among the metrics asked for" in evaluate(
        "score", "a", "b", "-m", "cells", "--weights", "clip=x"
    ).failure(2)
    assert "no layers" in evaluate(
        *("sweep", "groups", gallery, "-m", "ssim", "--layers", "M", "--steps", "900", "-o", tmp_path / "m.png")
    ).failure(2)


@loads_model_libraries
@pytest.mark.thorough
def test_figure_sweep_and_coarse_recall_write_their_results(evaluate, gallery: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    query = gallery / STYLES[1] / f"{MOTIFS[2]}.png"
    assert evaluate("figure", gallery, "-m", "lab-hist,ssim", "-o", tmp_path / "f.png", "--query", query).code == 0
    assert (tmp_path / "f.png").is_file()
    (tmp_path / "styles").mkdir()
    for style in STYLES[:2]:
        (tmp_path / "styles" / style).symlink_to(gallery / style)
    ran = evaluate(
        *(
            "sweep",
            "groups",
            tmp_path / "styles",
            "-m",
            "diffsim-s",
            "--layers",
            "D_1,M",
            "--steps",
            "951",
            "--triplets",
            "20",
        ),
        *("-o", tmp_path / "map.png", "--csv", tmp_path / "map.csv", "--image-sizes", "64,128"),
        *("--weights", DATA / "tiny_sd15"),
    )
    names = [f"diffsim-s {layer} {size} px at 951" for size in (64, 128) for layer in ("D_1", "M")]
    assert [line.split("\t")[0] for line in ran.out.splitlines()] == names
    assert len((tmp_path / "map.csv").read_text().splitlines()) == 5
    shown = evaluate("coarse-recall", gallery, "-m", "lab-hist", "--candidates", "10,39", "-k", "4").out
    assert "of the exact top 4, 100.0 % are among 39 candidates, and all of them for 100.0 % of 40 queries" in shown


def test_weights_reach_an_ensembles_members(tmp_path: Path) -> None:
    from cli.eval.loading import weights_by_metric
    from retrieval.errors import UsageError

    found = weights_by_metric([f"clip={tmp_path}", "elsewhere"], ["ensemble", "cells"])
    assert found["clip"] == str(tmp_path)
    assert found["cells"] == found["diffsim-s"] == "elsewhere"
    with pytest.raises(UsageError, match="is not among the metrics asked for"):
        weights_by_metric(["dit-256=x"], ["ensemble"])


def test_coarse_recall_takes_an_index_or_a_folder(evaluate, index: Path, gallery: Path) -> None:  # type: ignore[no-untyped-def]
    ran = evaluate("coarse-recall", index, "--queries", "2", "--candidates", "39", "-k", "3", "--quiet")
    first = "style: of the exact top 3, 100.0 % are among 39 candidates, and all of them for 100.0 % of 2 queries"
    assert ran.out.splitlines()[0] == first
    assert "name the metric for a folder of images with --metric" in evaluate("coarse-recall", gallery).failure(2)
    assert "does not exist: an index, or a folder" in evaluate("coarse-recall", "nowhere").failure(2)
    assert "leave --metric" in evaluate("coarse-recall", index, "-m", "cells").failure(2)
    assert "1 to 39 neighbours" in evaluate("coarse-recall", index, "-k", "40").failure(2)
    asked = evaluate("coarse-recall", index, "--queries", "1", "--candidates", "2", "-k", "4", "--json")
    report = json.loads(asked.out)
    assert report["index"] == str(index)
    first = report["recalls"][0]
    assert first.keys() == {"of", "k", "candidates", "recall", "whole", "queries"}
    assert (first["of"], first["k"], first["candidates"]) == ("style", 4, 2)


def test_words_of_the_command_line_are_refused_in_one_line(evaluate, gallery: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    message = evaluate("coarse-recall", gallery, "--queries", "0").failure(2)
    assert "invalid value for '--queries'" in message
    assert message.endswith("coarse-recall --help")
    assert "nothing.csv" not in evaluate(
        *("tune", "--triplets", "nothing.csv", "--encoder", "descriptor", "--out", tmp_path / "t")
    ).failure(2)
    assert "at most 1000" in evaluate("score", "a", "b", "-m", "cells", "--step", "1001").failure(2)
    a = gallery / STYLES[0] / f"{MOTIFS[0]}.png"
    ran = evaluate("score", a, a, "-m", "cells", "--step", "900", "--dtype", "float16")
    assert ran.err.splitlines() == ["note: --step changes nothing of cells", "note: --dtype changes nothing of cells"]


def test_a_table_names_what_it_leaves_out(evaluate, gallery: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    report = tmp_path / "r.json"
    evaluate("bench", "groups", gallery, "-m", "rgb-hist", "--triplets", "5", "-o", report)
    ran = evaluate("table", report)
    assert "groups" in ran.err
    assert "rgb-hist" not in ran.out
