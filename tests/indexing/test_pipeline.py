"""A build's device side: batches by free memory, compiled regions, memory that runs out, and each stage's speed."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from index_store.reader import IndexReader
from retrieval.encoding.batches import USABLE, batch_size, fitting
from retrieval.encoding.compilation import compile_models, regions
from retrieval.encoding.loaded_models import LoadedModels, ModelInputs, load_models
from retrieval.errors import MemoryFullError, UsageError
from retrieval.indexing.build import build_index
from retrieval.indexing.dry_run import plan_build
from retrieval.indexing.fill import fill_index
from retrieval.indexing.reports import BuildEvent
from retrieval.models.capture import capture_inputs
from retrieval.models.modes import SD15_MODES, Outputs, Target
from retrieval.scoring.aas import QKV, aligned_attention_scores
from retrieval.settings import BuildSettings, ModelSettings
from tests.support.golden import GOLDEN, needs_golden, tiny_dit
from tests.support.paths import DATA, ROOT
from tests.support.stub_models import RUN, TinyExtractor, paint, tiny_model

TINY = DATA / "tiny_sd15"
STYLE = Outputs(("style",))


def sd15(target: Target = SD15_MODES["style"].target, **choices: Any) -> LoadedModels:
    settings = ModelSettings(model="sd15", weights=str(TINY), image_size=64, noise="pairwise", encoders={}, **choices)
    return load_models(settings, {"style": target}, "cpu", offline=True)


def prepared(models: LoadedModels, count: int) -> list[ModelInputs]:
    drawn = np.random.default_rng(3).integers(0, 256, (count, 64, 64, 3), np.uint8)
    return [models.prepare(Image.fromarray(pixels), STYLE) for pixels in drawn]


def compiled_graphs() -> int:
    from torch._dynamo.utils import counters

    return int(counters["stats"]["unique_graphs"])


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
    extract, calls = TinyExtractor.extract, []

    def greedy(self: TinyExtractor, pixels: Any, *rest: Any) -> dict[Any, QKV]:
        calls.append(len(pixels))
        if len(calls) > 4:
            torch.empty(1 << 60, dtype=torch.uint8)
        return extract(self, pixels, *rest)

    monkeypatch.setattr(TinyExtractor, "extract", greedy)
    words = r"of cpu does not hold 2 images .* less than 2 with --batch"
    with tiny_model():
        with pytest.raises(MemoryFullError, match=words) as told:
            build_index(photos, index, model="mini", modes=["style"], encoders={}, run=RUN)
        assert told.value.exit_code == 5
        assert len(IndexReader(index)) == 8, "the four batches that were computed"
        monkeypatch.setattr(TinyExtractor, "extract", fail)
        with pytest.raises(RuntimeError, match="nobody's memory"):
            build_index(photos, index, model="mini", modes=["style"], encoders={}, run=RUN)


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
            photos, index, model="mini", modes=["style"], run=replace(RUN, attention="lazy"), on_event=events.append
        )
        filled = fill_index(index, run=RUN, on_event=events.append)
    batches = [event for event in events if event.kind == "batch"]
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


# --- Compiled regions


def test_regions_hold_no_layer_that_is_read_and_cover_the_rest() -> None:
    models = sd15()
    extractor: Any = models.extractor
    vae, unet = extractor.networks()
    read = {extractor.attention("U_0")}
    assert [type(region).__name__ for region in regions(vae, read)] == ["Encoder"]
    found = list(regions(unet, read))
    inside = {part for region in found for part in region.modules()}
    assert not inside & read
    kinds = {"ResnetBlock2D", "Transformer2DModel"}
    left_out = [name for name, part in unet.named_modules() if type(part).__name__ in kinds and part not in inside]
    assert left_out == ["up_blocks.1.attentions.2"], "the one that is read; its pass ends there"


@pytest.fixture
def fresh_compiler() -> Any:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.usefixtures("fresh_compiler")
def test_short_batches_and_other_threads_use_what_was_compiled() -> None:
    """Traced, but not turned into machine code, which takes a minute: see the slow test."""
    models = sd15(Target("D_0", 101))
    images = prepared(models, 3)
    plain = models.encode_stored(images, STYLE).tensors["style"]
    before = compiled_graphs()
    compiled = compile_models(models, 2, backend="eager")
    graphs = compiled_graphs()
    assert graphs - before >= 3, "VAE, ResNet block, transformer block"
    found: list[Any] = []

    def compute() -> None:
        found.extend(compiled.encode_stored(batch, STYLE).tensors["style"] for batch in (images[:2], images[2:]))

    thread = threading.Thread(target=compute)
    thread.start()
    thread.join()
    assert compiled_graphs() == graphs
    for name, array in plain.items():
        assert [len(each[name]) for each in found] == [2, 1]
        np.testing.assert_allclose(np.concatenate([each[name] for each in found]), array, atol=2e-3)
    extractor: Any = compiled.extractor
    inner = {"D": extractor.network.get_submodule("down_blocks.0.attentions.0.transformer_blocks.0.attn1")}
    with pytest.raises(RuntimeError, match="not reached"):
        capture_inputs(lambda: extractor.hidden(pixels(images[:2]), [Target("D_0", 101)], "gallery"), inner)


@pytest.mark.usefixtures("fresh_compiler")
def test_what_changes_later_is_compiled_too_in_any_thread_and_beyond_torchs_own_limit() -> None:
    models = sd15(Target("D_0", 101))
    images, threads, before = prepared(models, 1), torch.get_num_threads(), compiled_graphs()
    compiled = compile_models(models, 1, backend="eager")
    each = compiled_graphs() - before

    def compute() -> None:
        with torch._dynamo.config.patch(recompile_limit=2):  # where torch, left alone, goes on without compiling
            compiled.encode_stored(images, STYLE)

    try:
        for number in range(1, 4):
            torch.set_num_threads(threads + number)  # which compiled code is bound to
            thread = threading.Thread(target=compute)
            thread.start()
            thread.join()
            assert compiled_graphs() - before == each * (number + 1)
    finally:
        torch.set_num_threads(threads)


def pixels(images: Sequence[ModelInputs]) -> Any:
    return np.stack([image["attention"] for image in images])


def test_a_model_without_networks_to_compile_is_told_and_leaves_no_trace(tmp_path: Path) -> None:
    paint(tmp_path / "photos", range(1))
    for command in (build_index, plan_build):  # a dry run times what the build would run
        with pytest.raises(UsageError, match="mini has nothing to compile; leave --compile out"):
            command(tmp_path / "photos", tmp_path / "x.diffsim", model="mini", run=replace(RUN, compile=True))
    assert not (tmp_path / "x.diffsim").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 1e-2)])
def test_compiled_scores_are_the_plain_ones(dtype: str, tolerance: float) -> None:
    models = sd15(dtype=dtype)
    images = prepared(models, 3)
    query, plain = models.encode(images[:1], "query", STYLE), models.encode(images, "gallery", STYLE)
    compiled = compile_models(models, 2)
    parts = [compiled.encode(batch, "gallery", STYLE).tensors["style"] for batch in (images[:2], images[2:])]
    scores = [
        aligned_attention_scores(wide(query.tensors["style"]), wide(gallery)).numpy()
        for gallery in (plain.tensors["style"], QKV.cat(parts))
    ]
    np.testing.assert_allclose(*scores, atol=tolerance)


def wide(tensors: QKV) -> QKV:
    return QKV(tensors.q.float(), tensors.k.float(), tensors.v.float())


@pytest.mark.slow
@needs_golden
@pytest.mark.usefixtures("fresh_compiler")
def test_sdxl_compiles_too() -> None:
    from retrieval.models.modes import SDXL_MODES

    weights = str(GOLDEN / "tiny" / "sdxl")
    settings = ModelSettings(model="diffsim-xl", weights=weights, image_size=64, noise="pairwise", encoders={})
    models = load_models(settings, {"style": SDXL_MODES["style"].target}, "cpu", offline=True)
    images = prepared(models, 1)
    plain = models.encode(images, "gallery", STYLE).tensors["style"]
    found = compile_models(models, 1).encode(images, "gallery", STYLE).tensors["style"]
    torch.testing.assert_close(found.q, plain.q, rtol=0, atol=1e-4)
    torch.testing.assert_close(found.v, plain.v, rtol=0, atol=1e-4)


@needs_golden
@pytest.mark.usefixtures("fresh_compiler")
def test_dit_compiles_too(tmp_path: Path) -> None:
    """Traced, but not turned into machine code; its second block is read, and so all others are compiled."""
    weights = str(tiny_dit(tmp_path))
    settings = ModelSettings(model="dit-256", weights=weights, image_size=128, noise="pairwise", encoders={})
    models = load_models(settings, {"style": Target("1", 401)}, "cpu", offline=True)
    extractor: Any = models.extractor
    _, network = extractor.networks()
    others = [block for number, block in enumerate(network.transformer_blocks) if number != 1]
    assert list(regions(network, {extractor.attention("1")})) == others
    images = prepared(models, 1)
    plain, before = models.encode(images, "gallery", STYLE).tensors["style"], compiled_graphs()
    found = compile_models(models, 2, backend="eager").encode(images, "gallery", STYLE).tensors["style"]
    assert compiled_graphs() - before == 2, "the VAE's encoder and the first block"
    for name in "qkv":
        torch.testing.assert_close(getattr(found, name), getattr(plain, name), rtol=0, atol=1e-4)


@pytest.mark.slow
def test_the_commands_compile_or_say_what_to_install(tmp_path: Path) -> None:
    paint(tmp_path / "photos", range(3))
    words = ["build", "photos", "--model", "sd15", "--weights", str(TINY), "--image-size", "64", "--encoders", "none"]
    words += ["--modes", "style", "--device", "cpu", "--batch-size", "2", "--compile", "--json"]
    code = "import sys; from cli.index_command import main; main()"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def command(**more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=tmp_path, env=environment | more
        )

    refused = command(CXX="/no/compiler", TORCHINDUCTOR_CACHE_DIR=str(tmp_path / "cache"))
    assert refused.returncode == 1, refused.stderr
    assert "install a C++ compiler" in refused.stderr
    built = command()
    assert built.returncode == 0, built.stderr
    assert json.loads(built.stdout)["items"] == 3
    assert "compiling the networks for batches of 2" in built.stderr
