"""A build's device side: batches by free memory, memory that runs out, and each stage's speed."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cli.advice import sentence_of
from index_store.reader import IndexReader
from retrieval.encoding.batches import USABLE, batch_size, fitting
from retrieval.encoding.loaded_models import LoadedModels, ModelInputs, load_models
from retrieval.errors import MemoryFullError
from retrieval.indexing.build import build_index
from retrieval.indexing.fill import fill_index
from retrieval.indexing.reports import BuildEvent
from retrieval.models.modes import SD15_MODES, Outputs, Target
from retrieval.settings import BuildSettings, ModelSettings
from tests.slices import loads_model_libraries
from tests.support.paths import DATA
from tests.support.sample_index import RUN, paint
from tests.support.stub_models import TinyExtractor, tiny_model

pytestmark = loads_model_libraries

TINY = DATA / "tiny_sd15"
STYLE = Outputs(("style",))


def sd15(target: Target = SD15_MODES["style"].target, **choices: Any) -> LoadedModels:
    settings = ModelSettings(model="sd15", weights=str(TINY), image_size=64, noise="pairwise", encoders={}, **choices)
    return load_models(settings, {"style": target}, "cpu", offline=True)


def prepared(models: LoadedModels, count: int) -> list[ModelInputs]:
    drawn = np.random.default_rng(3).integers(0, 256, (count, 64, 64, 3), np.uint8)
    return [models.prepare(Image.fromarray(pixels), STYLE) for pixels in drawn]


# --- Batches by memory


@given(st.integers(1, 64), st.integers(0, 10**9), st.none() | st.integers(0, 10**11))
def test_a_batch_fits_into_the_free_memory_or_is_one_image(most: int, an_image: int, free: int | None) -> None:
    found = fitting(most, an_image, free)
    if free is None or an_image == 0:
        assert found == most
    else:
        assert found == 1 or found * an_image <= USABLE * free
        assert found == most or (2 * found + 1) * an_image > USABLE * free, "no larger than it had to be"


def test_the_batch_on_an_accelerator_follows_its_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retrieval.encoding.batches.choose_device", lambda name: torch.device("cuda", 0))
    free: list[int | None] = []
    monkeypatch.setattr("retrieval.encoding.batches.available_memory", lambda device: free[-1])
    half, single = (ModelSettings(model="sd15", dtype=dtype) for dtype in ("float16", "float32"))
    for megabytes, expected in ((80_000, (16, 16)), (6_000, (8, 4)), (1_000, (2, 1)), (10, (1, 1))):
        free.append(10**6 * megabytes)
        assert (batch_size(half, BuildSettings()), batch_size(single, BuildSettings())) == expected
    assert batch_size(half, BuildSettings(batch_size=12)) == 12, "as asked, whatever is free"
    assert batch_size(replace(half, image_size=1024), BuildSettings()) == 1
    free.append(2_000 * 10**6)
    assert batch_size(ModelSettings(model="diffsim-xl", dtype="float16"), BuildSettings()) == 2, "its VAE is float32"
    free.append(None)
    assert batch_size(half, BuildSettings()) == 16


def test_memory_that_runs_out_names_the_option_and_keeps_what_was_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, index = tmp_path / "photos", tmp_path / "x.diffsim"
    paint(photos, range(12))
    hidden, calls = TinyExtractor.hidden, []

    def greedy(self: TinyExtractor, pixels: Any, *rest: Any) -> dict[Target, torch.Tensor]:
        calls.append(len(pixels))
        if len(calls) > 4:
            torch.empty(1 << 60, dtype=torch.uint8)
        return hidden(self, pixels, *rest)

    monkeypatch.setattr(TinyExtractor, "hidden", greedy)
    with tiny_model():
        with pytest.raises(MemoryFullError, match="of cpu does not hold 2 images") as caught:
            build_index(photos, index, model="cells", modes=["style"], encoders={}, run=RUN)
        assert caught.value.exit_code == 5
        assert "fewer than 2 with --batch-size" in sentence_of(caught.value)
        assert len(IndexReader(index)) == 8, "the four batches that were computed"
        monkeypatch.setattr(TinyExtractor, "hidden", fail)
        with pytest.raises(RuntimeError, match="nobody's memory"):
            build_index(photos, index, model="cells", modes=["style"], encoders={}, run=RUN)


def fail(*arguments: object) -> None:
    raise RuntimeError("another error is nobody's memory")


# --- Speeds


def test_builds_and_fills_tell_the_speed_of_every_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retrieval.encoding.timing.LEAST_SECONDS", 0.0)  # the tiny model works for less
    photos, index = tmp_path / "photos", tmp_path / "x.diffsim"
    paint(photos, range(6))
    events: list[BuildEvent] = []
    with tiny_model():
        built = build_index(
            photos, index, model="cells", modes=["style"], run=replace(RUN, attention="lazy"), on_progress=events.append
        )
        filled = fill_index(index, run=RUN, on_progress=events.append)
    batches = [event for event in events if event.stage == "encode"]
    assert len(batches) == 6
    for speeds in (*(event.speeds for event in batches), built.speeds, filled.speeds):
        assert set(speeds) == {"decode", "compute", "write"}
        assert min(speeds.values()) > 0
    for report in (built, filled):
        told = report.to_dict()
        assert told["speeds"][told["slowest"]] == min(told["speeds"].values())


def test_modes_of_one_target_share_one_encoding() -> None:
    models = sd15()
    twice = replace(models, targets={"style": models.targets["style"], "lowlevel": models.targets["style"]})
    stored = twice.encode_stored(prepared(models, 1), Outputs(("style", "lowlevel")))
    assert stored.tensors["style"] is stored.tensors["lowlevel"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_launched_one_behind_the_other_are_those_of_a_cpu(tmp_path: Path) -> None:
    paint(tmp_path / "photos", range(7))
    found = []
    for device in ("cpu", "cuda"):
        run = BuildSettings(device=device, batch_size=2, workers=2)  # type: ignore[arg-type]
        choices: dict[str, Any] = {"model": "sd15", "weights": str(TINY), "image_size": 64, "encoders": {}}
        index = tmp_path / f"{device}.diffsim"
        report = build_index(tmp_path / "photos", index, modes=["style"], run=run, dtype="float32", **choices)
        assert set(report.speeds) == {"decode", "compute", "write"}
        found.append(IndexReader(index).attention("style", range(7)))
    for name, array in found[0].items():
        np.testing.assert_allclose(found[1][name], array, atol=2e-2)
