"""What a build says before it computes: bytes exactly, what would fit, and a dry run that writes nothing."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from cli.advice import sentence_of
from cli.index_command import app
from index_store.codecs import CODECS
from index_store.generation import read_current
from index_store.layout import Layout
from index_store.reader import IndexReader
from retrieval import build_index
from retrieval.encoding.loaded_models import load_models
from retrieval.encoding.stored_tensors import load_projection
from retrieval.errors import IndexIncompatibleError, NoSpaceError, UsageError
from retrieval.indexing.dry_run import plan_build
from retrieval.indexing.estimate import (
    CATALOGUE_BYTES,
    Workload,
    estimate_workload,
    measure_bytes_per_image,
    weights_bytes,
)
from retrieval.indexing.reports import BuildEvent
from retrieval.models.modes import CELLS_MODES, Target, at_step
from retrieval.models.protocols import HiddenExtractor
from retrieval.models.registry import load_extractor
from retrieval.settings import ModelSettings
from tests.models.test_sd15 import TINY
from tests.models.test_sd15 import load as load_sd15
from tests.models.test_vit import write_tiny_models
from tests.slices import loads_model_libraries
from tests.support.golden import golden_models, tiny_dit
from tests.support.sample_index import RUN, paint
from tests.support.stub_models import load_tiny, tiny_model

pytestmark = loads_model_libraries

Shrink = Callable[[int], None]


@pytest.fixture
def free_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Shrink:
    """Say that the disk has so many bytes left."""
    usage = shutil.disk_usage(tmp_path)

    def shrink(free: int) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=free))

    return shrink


def disk(root: Path) -> list[tuple[str, int, int]]:
    """Every file with its size and time of change."""
    stats = [(str(path), path.stat()) for path in sorted(root.rglob("*"))]
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]


def stored_bytes(index: Path, mode: str) -> int:
    return sum(array.nbytes for array in IndexReader(index).attention(mode, [0]).values())


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.thorough
def test_the_estimate_is_what_is_stored(tmp_path: Path, codec: str) -> None:
    """Of cells with two modes and of the tiny SD 1.5, whose network is not run for it."""
    paint(tmp_path / "photos", range(3))
    for name, modes, choices in (
        ("cells", ["style", "instance"], {"model": "cells"}),
        ("sd15", ["style"], {"model": "sd15", "weights": str(TINY), "image_size": 64, "encoders": {}}),
    ):
        events: list[BuildEvent] = []
        index = tmp_path / f"{name}.diffsim"
        build_index(tmp_path / "photos", index, modes=modes, codec=codec, run=RUN, on_progress=events.append, **choices)  # type: ignore[arg-type]
        (estimate,) = [event.estimate for event in events if event.estimate]
        names = modes[:1] if CODECS[codec].hidden else modes
        assert estimate.bytes_by_mode == {mode: stored_bytes(index, mode) for mode in names}
        assert estimate.shared == dict.fromkeys(modes[len(names) :], "style")
        encoders = read_current(Layout(index)).encoders
        assert estimate.bytes_beside == CATALOGUE_BYTES + 2 * 214 * len(encoders)
        written = sum(path.stat().st_size for path in index.rglob("*.npz"))
        once = estimate.disk_bytes - 3 * estimate.bytes_an_image
        assert once <= written <= once + 3000  # the headers of a zip of arrays


def test_vision_transformers_say_their_shapes_and_project_as_they_do(tmp_path: Path) -> None:
    write_tiny_models(tmp_path)
    for model, parity in (("clip-aas", "sound"), ("clip-aas", "published"), ("dinov2-aas", "sound")):
        weights = str(tmp_path / model.removesuffix("-aas"))
        extractor = load_extractor(
            ModelSettings(model=model, weights=weights, parity=parity),  # type: ignore[arg-type]
            torch.device("cpu"),
            offline=True,
        )
        assert isinstance(extractor, HiddenExtractor)
        pixels = np.stack([extractor.prepare(Image.new("RGB", (50, 60), color)) for color in ("red", "grey")])
        targets = [Target("0", 0), Target("last", 0)]
        direct, hidden = extractor.extract(pixels, targets, "query"), extractor.hidden(pixels, targets, "query")
        for target in targets:
            assert hidden[target].shape[1:] == extractor.hidden_shape(target)
            again = load_projection(extractor.projection(target).arrays())(hidden[target])
            torch.testing.assert_close(again.v, direct[target].v, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("model", "layers"), [("diffsim-xl", ["D_0", "M", "U_0"]), ("dit-256", ["0", "1"])])
def test_larger_models_say_their_shapes(tmp_path: Path, model: str, layers: list[str]) -> None:
    weights = tiny_dit(tmp_path) if model == "dit-256" else golden_models() / "sdxl"
    settings = ModelSettings(model=model, weights=str(weights), image_size=128)
    extractor = load_extractor(settings, torch.device("cpu"), offline=True)
    assert isinstance(extractor, HiddenExtractor)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 128, 128, 3), np.uint8)
    targets = [at_step(layer, 600) for layer in layers]
    for target, hidden in extractor.hidden(pixels, targets, "gallery").items():
        assert hidden.shape[1:] == extractor.hidden_shape(target)


def test_a_full_disk_names_the_codec_that_fits_then_the_mode(tmp_path: Path, free_disk: Shrink) -> None:
    paint(tmp_path / "photos", range(4))
    settings = ModelSettings(model="cells", encoders={"descriptor": None, "subject": None})
    targets = {mode: CELLS_MODES[mode].target for mode in ("style", "instance")}
    models = load_models(settings, targets, "cpu", True)
    room = measure_bytes_per_image(models)
    both, index = ("style", "instance"), tmp_path / "x.diffsim"

    def refused(free: int) -> str:
        free_disk(free)
        with pytest.raises(NoSpaceError) as caught:
            build_index(tmp_path / "photos", index, model="cells", modes=both, codec="qkv-float16", run=RUN)
        assert not index.exists()
        assert f"{index} would grow by" in str(caught.value)
        return sentence_of(caught.value)

    assert "; --codec hidden-float16 would fit" in refused(room.total("hidden-float16", both, 4))
    assert "; --codec hidden-int8 would fit" in refused(room.total("hidden-float16", both, 4) - 1)
    assert "--attention lazy" in refused(room.total("hidden-int8", both, 4) - 1), "both modes read one map"
    assert "even --codec hidden-int8 needs" in refused(1000)
    free_disk(room.total("qkv-float16", both, 4))
    assert build_index(tmp_path / "photos", index, model="cells", modes=both, codec="qkv-float16", run=RUN).added == 4


def test_an_index_is_not_told_to_change_its_codec(tmp_path: Path, free_disk: Shrink) -> None:
    paint(tmp_path / "photos", range(1))
    with tiny_model():
        build_index(tmp_path / "photos", tmp_path / "x.diffsim", model="cells", codec="qkv-float16", run=RUN)
        paint(tmp_path / "photos", range(9))
        before = disk(tmp_path / "x.diffsim")
        free_disk(14_000)
        with pytest.raises(NoSpaceError) as caught:
            build_index(tmp_path / "photos", tmp_path / "x.diffsim", run=RUN)
    assert "; --modes style in a new index would fit" in sentence_of(caught.value)
    assert disk(tmp_path / "x.diffsim") == before


def test_what_items_lack_is_estimated_and_timed_beforehand(tmp_path: Path, free_disk: Shrink) -> None:
    """A mode for six items, and one new image."""
    photos, index = tmp_path / "photos", tmp_path / "x.diffsim"
    one_image = 2 * 3 * 192  # bytes of float16 q, k and v
    with tiny_model():
        paint(photos, range(6))
        encoders: dict[str, str | None] = {"descriptor": None, "subject": None}
        build_index(photos, index, model="cells", modes=["style"], encoders=encoders, codec="qkv-float16", run=RUN)
        before = disk(tmp_path)
        plan = plan_build(photos, index, modes=["instance"], run=RUN)
        assert plan.estimate is not None
        assert (plan.new, plan.to_complete, plan.estimate.images, plan.estimate.to_complete) == (0, 6, 0, 6)
        assert plan.estimate.disk_bytes == 6 * one_image
        assert plan.seconds == pytest.approx(6 * (plan.seconds_an_image or 0))
        assert plan.seconds
        paint(photos, ["new.png"])
        both = plan_build(photos, index, modes=["instance"], run=RUN)
        assert both.estimate is not None
        new = 2 * one_image + 2 * 2 * 48 + CATALOGUE_BYTES
        assert both.estimate.disk_bytes == 6 * one_image + new
        (photos / "new.png").unlink()
        assert disk(index) == [entry for entry in before if entry[0].startswith(str(index) + "/")]
        free_disk(6 * one_image - 1)
        with pytest.raises(NoSpaceError, match=r"would grow by 6.9 kB \(1.2 kB an image\)") as caught:
            build_index(photos, index, modes=["instance"], run=RUN)
        assert "; add or fill fewer modes" in sentence_of(caught.value)
        assert read_current(Layout(index)).modes == ("style",)
        free_disk(6 * one_image)
        assert build_index(photos, index, modes=["instance"], run=RUN).completed == 6


def test_a_mode_that_shares_tensors_takes_no_room_and_no_time(tmp_path: Path) -> None:
    photos, index = tmp_path / "photos", tmp_path / "x.diffsim"
    paint(photos, range(3))
    with tiny_model():
        build_index(photos, index, model="sd15", encoders={}, modes=["style"], run=RUN)
        plan = plan_build(photos, index, modes=["lowlevel"], run=RUN)
        assert (plan.to_complete, plan.estimate, plan.seconds) == (0, None, None)


def test_weights_count_before_they_are_read() -> None:
    extractor = load_sd15()
    assert weights_bytes(extractor) > sum(tensor.nbytes for tensor in extractor.network.parameters()) > 0
    assert weights_bytes(load_tiny(ModelSettings(), {}, "cpu", True).extractor) == 0


def test_a_batch_that_memory_cannot_hold_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paint(tmp_path / "photos", range(2))
    settings = ModelSettings(model="cells", image_size=144)
    models = load_tiny(settings, {"style": CELLS_MODES["style"].target}, "cpu", True)
    needed = estimate_workload(models, settings, RUN, tmp_path, Workload(2, ("style",))).batch_bytes
    assert needed > 0
    monkeypatch.setattr("retrieval.indexing.estimate.available_memory", lambda device: needed - 1)
    photos, index = tmp_path / "photos", tmp_path / "x.diffsim"
    with pytest.raises(NoSpaceError, match="a batch of 2 images needs") as caught:
        build_index(photos, index, model="cells", run=RUN, load=load_tiny)
    assert sentence_of(caught.value).endswith("; --batch-size 1 would fit")
    monkeypatch.setattr("retrieval.indexing.estimate.available_memory", lambda device: 1)
    with pytest.raises(NoSpaceError) as caught:
        build_index(photos, index, model="cells", run=RUN, load=load_tiny)
    assert "choose a smaller --image-size" in sentence_of(caught.value)
    monkeypatch.setattr("retrieval.indexing.dry_run._seconds", None)  # a dry run computes none either
    plan = plan_build(photos, index, model="cells", run=RUN, load=load_tiny)
    assert plan.advice == "smaller-images"
    assert not plan.fits


def test_a_dry_run_counts_times_and_writes_nothing(tmp_path: Path) -> None:
    photos, index = tmp_path / "photos", tmp_path / "x.diffsim"
    paint(photos, range(6))
    with tiny_model():
        fresh = plan_build(photos, index, model="cells", run=RUN)
        assert (fresh.new, fresh.changed, fresh.unchanged) == (6, 0, 0)
        assert not index.exists()
        build_index(photos, index, model="cells", run=RUN)
        (photos / "000.png").rename(photos / "renamed.png")
        (photos / "001.png").unlink()
        paint(photos, ["002.png", "new.png"], seed=1)
        (photos / "notes.txt").write_text("no image")
        before = disk(tmp_path)
        plan = plan_build(photos, index, run=RUN)
        assert disk(tmp_path) == before
        counts = (plan.new, plan.changed, plan.moved, plan.vanished, plan.unchanged, plan.passed_over)
        assert counts == (1, 1, 1, 1, 3, 1)
        assert plan.estimate is not None
        assert plan.estimate.images == 2
        assert plan.seconds_an_image
        assert plan.seconds == pytest.approx(2 * plan.seconds_an_image)
        report = build_index(photos, index, run=RUN)
        assert (report.added, report.replaced, report.moved, report.removed) == (2, 1, 1, 1)
        nothing = plan_build(photos, index, run=RUN)
        assert (nothing.unchanged, nothing.estimate, nothing.fits) == (6, None, True)
        with pytest.raises(IndexIncompatibleError, match="codec"):
            plan_build(photos, index, codec="hidden-int8")
        with pytest.raises(UsageError, match="unknown mode"):
            plan_build(photos, tmp_path / "y.diffsim", model="cells", modes=["x"])


def test_the_command_says_what_it_would_do(tmp_path: Path, free_disk: Shrink) -> None:
    paint(tmp_path / "photos", range(3))
    words = ["build", str(tmp_path / "photos"), "-i", str(tmp_path / "x.diffsim"), "--model", "cells", "--dry-run"]
    shared = CliRunner().invoke(app, words, catch_exceptions=False).stdout
    assert "each image: as hidden-float16 style + instance + semantic 15.4 kB, vectors" in shared
    words += ["--codec", "qkv-float16"]
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0
    assert "3 new, 0 changed" in result.stdout
    assert "each image: as qkv-float16 style 46.2 kB, instance 46.2 kB, semantic 46.2 kB" in result.stdout
    assert "time: about 0:0" in result.stdout
    free_disk(200_000)
    data = CliRunner().invoke(app, [*words, "--json"], catch_exceptions=False)
    assert data.exit_code == NoSpaceError.exit_code == 5
    told = json.loads(data.stdout)
    assert told["fits"] is False
    assert told["estimate"]["bytes_by_mode"]["style"] == 46224
    assert "--codec hidden-float16 would fit" in told["estimate"]["advice"]
    assert "and 200.0 kB are free; --codec" in CliRunner().invoke(app, words, catch_exceptions=False).stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos"]
