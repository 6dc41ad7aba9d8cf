"""Every attention metric can be indexed: the scores of a search are the metric's own."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cli.index_command import app as index_app
from cli.search_command import app as search_app
from retrieval.encoding.fingerprint import differences
from retrieval.errors import IndexIncompatibleError, UsageError
from retrieval.images.decoding import DecodeRules, read_image
from retrieval.indexing.build import build_index
from retrieval.metrics.base import MetricSettings
from retrieval.metrics.registry import AAS, METRICS, chosen_model, describe_metric, indexed_by, load_metric
from retrieval.search.engine import Engine
from retrieval.settings import BuildSettings, EngineSettings
from tests.models.test_vit import write_tiny_models
from tests.slices import EVERY, loads_model_libraries
from tests.support.golden import DATA, golden_models

pytestmark = loads_model_libraries

CPU = BuildSettings(device="cpu", workers=1)
PICTURES = DATA / "golden_images"
NAMES = sorted(path.name for path in PICTURES.glob("*.png"))[: None if EVERY else 4]


def check_scores(metric: str, mode: str, index: Path, **choices: Any) -> None:
    """Build with the metric's model, and hold a search of every image to the metric's scores."""
    given = {**choices, "alpha": "drop", "encoders": {}}
    pictures = [PICTURES / name for name in NAMES]
    build_index(pictures, index, modes=[mode], run=CPU, model=indexed_by(metric), **given)
    engine = Engine.open(index, EngineSettings(device="cpu"))
    target = engine.info()["modes"][mode]
    own = {"layer": target["layer"], "denoising_step": target["denoising_step"] if target["timestep"] else None}
    loaded = load_metric(metric, MetricSettings(**{**own, **choices}), offline=True)
    images = [read_image(PICTURES / name, DecodeRules(alpha="drop"))[0] for name in NAMES]
    query, gallery = loaded.encode(images[:1], "query"), loaded.encode(images, "gallery")
    exact = dict(zip(NAMES, loaded.score(query, gallery).tolist(), strict=True))
    results = engine.search(PICTURES / NAMES[0], mode, exhaustive=True, k=len(NAMES))
    found = {Path(result.path).name: result.score for result in results}
    assert found == pytest.approx(exact, abs=2e-3)  # the index keeps float16
    assert engine.score(PICTURES / NAMES[0], PICTURES / NAMES[3], mode) == pytest.approx(exact[NAMES[3]], abs=1e-5)
    assert np.std(list(exact.values())) > 1e-4


@pytest.mark.parametrize(("metric", "mode"), [("clip-aas", "semantic"), ("dinov2-aas", "instance")])
def test_a_search_with_a_vision_transformer_gives_the_metrics_scores(metric: str, mode: str, tmp_path: Path) -> None:
    write_tiny_models(tmp_path)
    check_scores(metric, mode, tmp_path / "some.diffsim", weights=str(tmp_path / metric.removesuffix("-aas")))


def test_published_parity_is_another_index_of_clip(tmp_path: Path) -> None:
    write_tiny_models(tmp_path)
    index, weights = tmp_path / "some.diffsim", str(tmp_path / "clip")
    check_scores("clip-aas", "semantic", index, weights=weights, parity="published")
    with pytest.raises(IndexIncompatibleError, match="parity: published in the index, sound asked for"):
        build_index(PICTURES, index, run=CPU, parity="sound")


@pytest.mark.thorough
def test_a_search_with_diffsim_c_sdxl_and_dit_gives_the_metrics_scores(tmp_path: Path) -> None:
    tiny = golden_models()
    sd15 = {"weights": str(tiny / "sd15"), "image_size": 128}
    check_scores("diffsim-c", "style", tmp_path / "c.diffsim", **sd15)
    check_scores("diffsim-c", "instance", tmp_path / "published.diffsim", **sd15, parity="published")
    shapes = Engine.open(tmp_path / "c.diffsim")._reader.generation.segments[0].attention["style"].row_shapes
    assert [shapes[name][2] for name in "qkv"] == [16, 16, 16]  # at 128 px U_0 has as many tokens as the image
    assert [shapes[name][0] for name in "qkv"] == [1, 1, 1]  # the conditional branch alone
    check_scores("diffsim-xl", "semantic", tmp_path / "xl.diffsim", weights=str(tiny / "sdxl"), image_size=128)


def test_info_shows_the_timestep_that_the_network_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusers import UNet2DConditionModel

    told: list[float] = []
    plain = UNet2DConditionModel.forward

    def forward(self: Any, sample: Any, timestep: Any, *args: Any, **rest: Any) -> Any:
        told.append(float(timestep))
        return plain(self, sample, timestep, *args, **rest)

    monkeypatch.setattr(UNet2DConditionModel, "forward", forward)
    for model, weights in (("diffsim-xl", "sdxl"), ("sd15", "sd15")):
        folder, given = str(golden_models() / weights), {"encoders": {}, "image_size": 128}
        build_index(
            PICTURES / NAMES[0], tmp_path / model, modes=["style"], run=CPU, model=model, weights=folder, **given
        )  # type: ignore[arg-type]
        shown = Engine.open(tmp_path / model).info()["modes"]["style"]
        assert {told.pop() for _ in told[:]} == {shown["timestep"]}
        timestep = 100 if weights == "sdxl" else 101
        assert shown == {"layer": "U_0", "timestep": timestep, "denoising_step": 900, "stored_as": "style"}


def test_a_search_with_dit_gives_the_metrics_scores(tmp_path: Path) -> None:
    import torch
    from diffusers import DiTTransformer2DModel

    torch.manual_seed(0)
    heads = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 15}
    DiTTransformer2DModel(**heads, in_channels=4, out_channels=8, sample_size=16, patch_size=4).save_pretrained(
        tmp_path / "dit" / "transformer"
    )
    (tmp_path / "dit" / "vae").symlink_to(DATA / "tiny_sd15" / "vae")
    weights = {"weights": str(tmp_path / "dit"), "image_size": 128}
    check_scores("dit-256", "instance", tmp_path / "dit.diffsim", **weights)


def test_names_of_metrics_that_can_be_indexed() -> None:
    able = [name for name in METRICS if describe_metric(name).loader == AAS]
    assert {"diffsim-s", "dinov2-aas", "clip-aas", "diffsim-c", "diffsim-xl", "dit-256", "cells"} <= set(able)
    assert chosen_model(None, "diffsim-s") == "sd15"
    assert chosen_model("cells", None) == "cells"
    assert chosen_model(None, None) is None
    with pytest.raises(UsageError, match=r"'ssim' can't be indexed.* these can: diffsim-s, mini"):
        indexed_by("ssim")
    with pytest.raises(UsageError, match="a model and a metric both name the model of an index"):
        chosen_model("cells", "clip-aas")


def test_the_commands_take_a_metric(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tiny_models(tmp_path)
    index = str(tmp_path / "some.diffsim")

    def run(app: Any, *words: str) -> str:
        with pytest.raises(SystemExit) as ended:
            app([*words, "--index", index], standalone_mode=True)
        assert not ended.value.code
        return capsys.readouterr().out

    weights = str(tmp_path / "dinov2")
    assert "search it with: diffsim-search PICTURE --mode semantic" in run(
        index_app, "build", str(PICTURES), "--metric", "dinov2-aas", "--weights", weights, "--device", "cpu"
    )
    shown = run(index_app, "info")
    assert "6 images, model dinov2-aas" in shown
    assert "semantic: layer last, " in shown
    assert "encoders: dinov2" in shown
    assert "no damage" in run(index_app, "verify")
    results = json.loads(run(search_app, str(PICTURES / NAMES[0]), "--json", "--device", "cpu"))["results"]
    assert Path(results[0]["path"]).name == NAMES[0]
    again = Engine.open(index).info()["fingerprint"]
    assert differences(again, again) == []
    assert again["model"]["name"] == "dinov2-aas"
