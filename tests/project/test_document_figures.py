"""Figures in the documents are measured, and tables repeat the registries of the code."""

import re
from collections.abc import Mapping

from tests.support.documents import figures_in, plain, read, rows, section


def test_the_readmes_figures_are_measured() -> None:
    """Every figure in a table of the README stands in a table of BENCHMARKS.md as well."""
    stated = figures_in(rows(read("README.md")))
    assert {"65 images/s", "54 ms", "22 s", "4.3 GB"} <= stated  # the figures are found at all
    measured = figures_in(rows(read("BENCHMARKS.md")))
    assert stated - measured - {figure.split()[0] for figure in measured} == set()


def test_figures_say_how_they_were_made() -> None:
    text = read("BENCHMARKS.md")
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert len(headings) >= 10
    for heading in headings:
        part = section(text, heading)
        assert re.search(r"^- Command: `(make|python|diffsim)", part, re.MULTILINE), heading
        assert re.search(r"^- Date: \d{4}-\d{2}-\d{2}\. Machine: (A|B|C|any)\b", part, re.MULTILINE), heading


def test_codecs_take_the_bytes_that_were_measured() -> None:
    stated = figures_in([row[2:] for row in rows(section(read("USAGE.md"), "Codecs"))[1:]])
    assert len(stated) == 6
    assert stated - figures_in([row[1:2] for row in rows(section(read("BENCHMARKS.md"), "Codecs"))]) == set()


def test_the_table_of_models_is_the_registry() -> None:
    from retrieval.models.encoders import EMBEDDERS
    from retrieval.models.modes import LAST_STEP
    from retrieval.models.registry import EXTRACTORS

    text = read("retrieval/models/README.md")
    for heading, table in (
        ("Attention models (`--model`)", EXTRACTORS),
        ("Encoders for candidates (`--encoders`)", EMBEDDERS),
    ):
        stated = {plain(row[0]): row[2:] for row in rows(section(text, heading))[1:]}
        assert set(stated) == set(table)
        for name, entry in table.items():
            size = f"{entry.download_mb} MB" if entry.download_mb else "none"
            repo = f"`{entry.repo}`" if entry.repo else "in the package"
            assert stated[name] == [entry.licence, size, repo], name
    header, *lines = rows(section(text, "Modes"))
    for line in lines:
        for model in re.findall(r"`([^`]+)`", line[0]):
            for mode, cell in zip(map(plain, header[1:]), line[1:], strict=True):
                assert bool(cell) == (mode in EXTRACTORS[model].modes), f"{model} {mode}"
                if step := re.search(r"step (\d+)", cell):
                    assert EXTRACTORS[model].modes[mode].target.timestep == LAST_STEP - int(step[1]), f"{model} {mode}"


def expand(cells: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """One entry a name, where a row's first cell names several."""
    return {name: row for names, row in cells.items() for name in re.findall(r"`([^`]+)`", names)}


def test_the_tables_of_benchmarks_and_metrics_are_the_code() -> None:
    from retrieval.evaluation.benchmarks.table import BENCHES
    from retrieval.metrics.registry import AAS, METRICS

    text = read("retrieval/evaluation/README.md")
    benches = {plain(row[0]): row for row in rows(section(text, "Benchmarks"))[1:]}
    assert set(benches) == {*BENCHES, "tiktok", "pairs", "all"}
    for name, bench in BENCHES.items():
        assert benches[name][2] == (str(bench.published) if bench.published else ""), name
    metrics = expand({row[0]: row for row in rows(section(text, "Metrics"))[1:]})
    assert set(metrics) == set(METRICS)
    for name, metric in METRICS.items():
        size = f"{metric.download_mb} MB" if metric.download_mb else "none"
        assert size in metrics[name][2], name
        assert (metrics[name][3] == "yes") == (metric.loader == AAS), name
        assert f"`{metric.needs}`" in metrics[name][1] if metric.needs else True, name
