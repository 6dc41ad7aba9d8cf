"""The benchmarks at small sizes: they build and measure what their tables say."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from index_store.reader import IndexReader
from retrieval import Engine, EngineSettings
from retrieval.models.registry import load_extractor
from retrieval.settings import ModelSettings
from tests.bench import build_cost, enlarged, gpu, reads, sizes
from tests.bench.gpu import build_speed, draw_photos, scores, steady
from tests.bench.timing import device_peak
from tests.slices import loads_model_libraries
from tests.support.paths import DATA
from tests.support.ranking import assert_same_ranking

TINY = DATA / "tiny_sd15"
ITEMS = 150


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    def here(function: Callable[..., Any], *arguments: object) -> Any:
        return function(*arguments)

    monkeypatch.setattr(enlarged, "DRAWN", 5)
    monkeypatch.setattr(enlarged, "SEGMENT_ROWS", 60)
    monkeypatch.setattr(enlarged, "SIDE", 64)
    monkeypatch.setattr(sizes, "run_apart", here)


@pytest.mark.usefixtures("small")
def test_an_enlarged_index_is_real(tmp_path: Path) -> None:
    index = enlarged.write(tmp_path, ITEMS)
    reader = IndexReader(index)
    assert [segment.rows for segment in reader.generation.segments] == [5, 60, 60, 25, 0]
    assert all(Path(item.uri).stat().st_mtime_ns == item.mtime_ns for item in reader.items())
    tensors = reader.attention(enlarged.MODE, range(ITEMS))
    assert len({row.tobytes() for row in tensors["h"]}) == ITEMS
    query = tmp_path / "photos" / "000000" / "000003.jpg"
    results = Engine.open(index, EngineSettings(device="cpu")).search(query, exhaustive=True, k=ITEMS).results
    assert_same_ranking(results[:1], [(3, 1.0)])  # rounding decides which of the best comes first
    [own] = [item for item in reader.items() if item.id == 3]
    twins = {item.id for item in reader.items() if item.sha256 == own.sha256}
    assert len(twins) > 5
    best = {result.id for result in results if abs(result.shown_score - results[0].shown_score) <= 1e-6}
    assert best == twins  # shuffled tokens, the same picture


@pytest.mark.usefixtures("small")
@pytest.mark.thorough
def test_every_figure_of_an_index_is_measured(tmp_path: Path) -> None:
    rows = sizes.sizes(tmp_path, "cpu", (ITEMS,))
    figures = {what.strip(): float(figure.split()[0]) for what, figure, _ in rows if figure != reads.NOT_MEASURED}
    assert all(value >= 0 for value in figures.values())
    read = figures["bytes read by a search"] * 1e6
    plain = ITEMS * 2 * 36 * 214  # of 150 candidates, the layer's input in float16; histograms are compressed
    assert plain / 6 < read < plain
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_what_runs_on_a_gpu_runs_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "COMPARED", 1)
    photos = draw_photos(tmp_path / "photos", 1)
    speed = build_speed(photos, TINY, "cpu", "float32")
    assert speed.whole > 0
    assert "compute" in speed.stages  # one image is too little to measure the others
    exact, rounded = (scores(TINY, "cpu", dtype) for dtype in ("float32", "bfloat16"))
    assert exact == pytest.approx(rounded, abs=2e-2)
    assert exact != rounded
    assert device_peak("cpu") == 0


def test_the_steady_speed_leaves_out_how_a_build_begins() -> None:
    assert steady([(8.0, 8), (100.0, 16), (101.0, 32), (102.0, 48), (103.0, 64)]) == pytest.approx(16)
    assert steady([(8.0, 8)]) == 0


@loads_model_libraries
def test_attention_is_counted_on_any_device() -> None:
    batch, heads, tokens, others, width = 2, 3, 64, 48, 16
    products = 2 * batch * heads * tokens * others * width  # of each of the two
    for device in ("cpu", "meta"):
        q, k, v = (torch.ones(batch, heads, count, width, device=device) for count in (tokens, others, others))
        with torch.inference_mode():
            found = build_cost.flops_of(lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v))  # noqa: B023
        assert found == 2 * products


@pytest.mark.slow  # counting imports what torch compiles with
@loads_model_libraries
def test_an_image_is_counted_on_shapes_as_on_numbers() -> None:
    settings = ModelSettings(model="sd15", weights=str(TINY), image_size=64, dtype="float32")
    found = [
        build_cost.count(load_extractor(settings, torch.device(device), offline=True)) for device in ("cpu", "meta")
    ]
    assert found[0] == found[1]


@pytest.mark.slow  # the real size; the test above counts the tiny model the same way
@loads_model_libraries
def test_an_image_takes_less_than_half_of_the_published_operations() -> None:
    found = build_cost.count(build_cost.shapes_alone())
    assert found["published_tflop"] == pytest.approx(8.17, abs=0.01)
    assert found["tflop"] == pytest.approx(3.48, abs=0.01)
    assert found["flop_share"] < 0.45


def test_cold_reads_are_measured_where_files_can_leave_the_memory(tmp_path: Path) -> None:
    mounts = f"/dev/a / ext4 rw 0 0\ntmpfs {tmp_path} tmpfs rw 0 0\n/dev/b {tmp_path}/disk xfs rw 0 0\n"
    assert not reads.can_forget(tmp_path / "x.diffsim", mounts)
    assert reads.can_forget(tmp_path / "disk" / "x.diffsim", mounts)
    assert reads.can_forget(tmp_path.parent, mounts)
    assert isinstance(reads.can_forget(tmp_path), bool)


@pytest.mark.usefixtures("small")
@pytest.mark.thorough
def test_a_figure_that_can_not_be_measured_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "can_forget", lambda folder: False)
    found = {what.strip(): (figure, note) for what, figure, note in sizes.sizes(tmp_path, "cpu", (ITEMS,))}
    assert found["the same, no tensors in the page cache"] == (reads.NOT_MEASURED, reads.IN_MEMORY)
