"""Sweeps over layers and steps, and their heat map."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from retrieval.errors import UsageError
from retrieval.evaluation.benchmarks.paper import BenchOptions
from retrieval.evaluation.runner import Run, run_bench
from retrieval.evaluation.sweep import CELLS, FEATURES, sweep
from retrieval.metrics.registry import load_metric
from retrieval.progress import Progress
from tests.slices import loads_model_libraries
from tests.support.paths import DATA

pytestmark = loads_model_libraries

TINY_SD15 = str(DATA / "tiny_sd15")


@pytest.fixture
def styles(gallery: Path, tmp_path: Path) -> Path:
    """Two of the drawn styles."""
    (tmp_path / "styles").mkdir()
    for folder in sorted(gallery.iterdir())[:2]:
        (tmp_path / "styles" / folder.name).symlink_to(folder)
    return tmp_path / "styles"


@pytest.mark.thorough
def test_a_sweep_measures_the_same_as_single_runs(styles: Path, tmp_path: Path) -> None:
    from retrieval.drawing.heatmap import draw_heatmap, write_heatmap
    from retrieval.metrics.aas import ExtractorMetric
    from retrieval.metrics.base import MetricSettings

    settings = MetricSettings(weights=TINY_SD15, image_size=64)
    metric = load_metric("diffsim-s", settings)
    assert isinstance(metric, ExtractorMetric)
    options = BenchOptions(triplets=60)
    found = sweep("groups", styles, "diffsim-s", ["D_1", "M"], [701, 951], Run({"diffsim-s": metric}, options))
    assert list(found) == [("D_1", 701), ("M", 701), ("D_1", 951), ("M", 951)]
    single = load_metric("diffsim-s", replace(settings, layer="M", denoising_step=701))
    alone = next(run_bench("groups", styles, Run({"diffsim-s": single}, options)))
    assert found["M", 701].value == alone.value
    values = [[found[layer, step].value for step in (701, 951)] for layer in ("D_1", "M")]
    write_heatmap(tmp_path / "map.png", draw_heatmap(values, ["D_1", "M"], ["701", "951"], "diffsim-s"))
    assert (tmp_path / "map.png").stat().st_size > 1000
    with pytest.raises(UsageError, match=r"\.png"):
        write_heatmap(tmp_path / "map.jpg", draw_heatmap([[0.5]], ["a"], ["b"], "one"))


@pytest.mark.thorough
def test_a_sweep_that_was_stopped_continues_where_it_was(
    gallery: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    whole = sweep("groups", gallery, "diffsim-s", ["D_1", "M"], [701, 951], Run({"diffsim-s": metric}, options))
    total = sum(encoded)

    kept = Run({"diffsim-s": metric}, options, cache=cache)

    def stop(progress: Progress) -> None:
        if "step 951" in progress.note and progress.done > 8:
            raise KeyboardInterrupt

    encoded.clear()
    with pytest.raises(KeyboardInterrupt):
        sweep("groups", gallery, "diffsim-s", ["D_1", "M"], [701, 951], replace(kept, on_progress=stop))
    assert sum(encoded) == total // 2 + 16
    assert sweep("groups", gallery, "diffsim-s", ["D_1", "M"], [701, 951], kept) == whole
    assert sum(encoded) == total  # nothing twice
    assert not list((cache / FEATURES).iterdir())
    assert sweep("groups", gallery, "diffsim-s", ["M"], [951], kept)["M", 951] == whole["M", 951]
    assert sum(encoded) == total
    next(iter((cache / CELLS).iterdir())).write_text("{")
    with pytest.raises(UsageError, match=r"is damaged .*remove it"):
        sweep("groups", gallery, "diffsim-s", ["D_1", "M"], [701, 951], kept)


def test_a_metric_without_layers_can_not_be_swept(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="ssim has no layers and steps to sweep; diffsim-s"):
        sweep("groups", tmp_path, "ssim", ["M"], [900], Run({"ssim": load_metric("ssim")}))
