"""The retrieval figure."""

from pathlib import Path

import pytest
from PIL import Image

from retrieval.errors import UsageError
from retrieval.evaluation.runner import Run
from retrieval.metrics.registry import load_metric


def test_a_figure_shows_the_query_and_its_neighbours(gallery: Path, tmp_path: Path) -> None:
    from retrieval.evaluation.figure import draw_figure

    metrics = {name: load_metric(name) for name in ("cells", "lab-hist", "ssim")}
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
