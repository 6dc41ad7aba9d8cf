"""Indexes whose encoders and attention lie in any repository: built, searched, continued, and kept at their commit."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from index_store.reader import IndexReader
from retrieval.errors import IndexIncompatibleError
from retrieval.indexing.build import build_index
from retrieval.metrics.registry import indexed_by, load_metric
from retrieval.models.registry import load_embedder
from retrieval.search.engine import Engine
from retrieval.settings import BuildSettings, EngineSettings
from tests.slices import loads_model_libraries
from tests.support.commands import run_here
from tests.support.hub.cache import Hub, online_hub
from tests.support.hub.vision_models import write_model

pytestmark = loads_model_libraries

SIGLIP, DINOV3, OLD, NEW = "someone/siglip2-tiny", "someone/dinov3-tiny", "a" * 40, "b" * 40
OFFLINE = BuildSettings(device="cpu", offline=True)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("repositories")
    write_model(root / "siglip", "siglip")
    write_model(root / "siglip-new", "siglip", seed=1)
    write_model(root / "dinov3", "dinov3_vit")
    return root


@pytest.fixture
def hub(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    places = {(SIGLIP, OLD): "siglip", (SIGLIP, NEW): "siglip-new", (DINOV3, OLD): "dinov3"}
    served = {key: {path.name: path.read_bytes() for path in (models / name).iterdir()} for key, name in places.items()}
    with online_hub(served, tmp_path / "hub", monkeypatch) as server:
        server.branches |= {(SIGLIP, "main"): OLD, (DINOV3, "main"): OLD}
        yield server


def test_an_index_keeps_the_commit_of_its_encoder(hub: Hub, gallery: Path, tmp_path: Path) -> None:
    index, name = tmp_path / "some.diffsim", f"hf:{SIGLIP}@{OLD}"
    first, *rest = sorted(gallery.iterdir())
    build_index(first, index, model="cells", encoders={f"hf:{SIGLIP}": None}, modes=["semantic"])
    reader = IndexReader(index)
    assert reader.generation.encoders == (name,)
    assert reader.generation.settings["encoders"] == {name: None}
    assert reader.generation.fingerprint["encoders"][name]["name"] == "hf:siglip_vision_model"

    hub.branches[SIGLIP, "main"] = NEW
    hub.requests.clear()
    build_index([first, *rest[:1]], index, encoders={f"hf:{SIGLIP}": None}, run=OFFLINE)
    assert IndexReader(index).generation.encoders == (name,)
    results = Engine.open(index, EngineSettings(offline=True)).search(first / "cat.png", k=3, rerank=False)
    assert results[0].path.endswith("cat.png")
    assert hub.requests == []

    vectors = np.load(next(index.glob("items/*/vectors/*.npy")))
    assert next(index.glob("items/*/vectors/*.npy")).name == f"hf=3Asomeone=2Fsiglip2-tiny@{OLD}.npy"
    embedder = load_embedder(name, None, torch.device("cpu"), offline=True)
    images = [Image.open(item.uri).convert("RGB") for item in IndexReader(index).items()[: len(vectors)]]
    expected = embedder.embed(np.stack([embedder.prepare(image) for image in images]))
    np.testing.assert_allclose(vectors, expected, atol=1e-3)


@pytest.mark.parametrize("codec", ["qkv-float16", "hidden-float16"])
def test_attention_of_any_repository_scores_as_its_metric(codec: str, hub: Hub, gallery: Path, tmp_path: Path) -> None:
    index, model = tmp_path / "some.diffsim", f"hf-aas:{DINOV3}#0"
    folder = sorted(gallery.iterdir())[0]
    report = build_index(folder, index, model=model, codec=codec, modes=["instance", "semantic"])
    assert report.model == f"hf-aas:{DINOV3}@{OLD}#0"
    assert IndexReader(index).generation.encoders == (f"hf:{DINOV3}@{OLD}",)
    pictures = sorted(folder.glob("*.png"))
    results = Engine.open(index).search(pictures[0], mode="instance", exhaustive=True, k=len(pictures))
    metric = load_metric(model)
    assert indexed_by(model) == model
    features = [metric.encode([Image.open(path).convert("RGB")], "query") for path in pictures]
    for result in results:
        number = [path.name for path in pictures].index(Path(result.path).name)
        assert result.score == pytest.approx(float(metric.score(features[0], features[number])[0]), abs=2e-3)
    with pytest.raises(IndexIncompatibleError, match=r"model: hf-aas:.*#0 in the index, hf-aas:.*#1 asked for"):
        build_index(folder, index, model=f"hf-aas:{DINOV3}#1")


def test_the_commands_take_folders_and_repositories(hub: Hub, models: Path, gallery: Path, tmp_path: Path) -> None:
    folder = sorted(gallery.iterdir())[0]
    encoders = f"hf:{models}/siglip,hf:{SIGLIP}={models}/siglip,descriptor"
    built = run_here(
        "diffsim-index", "build", folder, "--index", "x.diffsim", "--model", "cells", "--encoders", encoders,
        "--json", cwd=tmp_path,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr.decode()
    assert IndexReader(tmp_path / "x.diffsim").generation.encoders == ("hf:siglip", f"hf:{SIGLIP}", "descriptor")
    found = run_here("diffsim-search", folder / "cat.png", "--index", "x.diffsim", "--json", cwd=tmp_path)
    assert json.loads(found.stdout)["results"][0]["path"].endswith("cat.png")

    assert run_here("diffsim-index", "doctor", "--weights", f"hf:{DINOV3}", cwd=tmp_path).returncode == 1
    fetched = run_here("diffsim-index", "fetch", f"hf:{DINOV3}", "--json", "--quiet", cwd=tmp_path)
    assert json.loads(fetched.stdout)["repositories"][0]["revision"] == OLD
    whole = run_here("diffsim-index", "doctor", "--weights", f"hf-aas:{DINOV3}", cwd=tmp_path)
    assert whole.returncode == 0, whole.stdout
    assert b"is whole: 3 files" in whole.stdout
    local = run_here("diffsim-index", "doctor", "--weights", f"hf:{models}/siglip", cwd=tmp_path)
    assert local.returncode == 0, local.stdout

    scored = run_here(
        "diffsim-eval", "score", folder / "cat.png", folder / "house.png", "-m", f"hf:{models}/siglip", cwd=tmp_path
    )
    assert scored.returncode == 0, scored.stderr.decode()
    unknown = run_here("diffsim-index", "build", folder, "--encoders", "hf:a/b/c", cwd=tmp_path)
    assert unknown.returncode == 2
    assert b"write hf:OWNER/NAME" in unknown.stderr
