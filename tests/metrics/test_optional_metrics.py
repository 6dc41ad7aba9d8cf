"""Metrics that need another package or large weights: their errors, and their results with stand-ins."""

import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cli.advice import sentence_of
from retrieval.errors import DependencyError, ModelError, UsageError
from retrieval.metrics.base import MetricSettings
from retrieval.metrics.features import select
from retrieval.metrics.ffa import ForegroundAverage, load_network
from retrieval.metrics.gram import FILE, gram, vgg19
from retrieval.metrics.registry import METRICS, describe_metric, load_metric
from retrieval.models.weights.finding import Weights, find_weights
from tests.models.test_vit import write_tiny_models
from tests.slices import loads_model_libraries
from tests.support.golden import images

pytestmark = loads_model_libraries


def dinov2_in(folder: Path) -> Weights:
    write_tiny_models(folder)
    return find_weights(METRICS["ffa"], folder / "dinov2", offline=True)


@pytest.mark.parametrize(("name", "package"), [("lpips", "lpips"), ("dreamsim", "dreamsim"), ("ffa", "rembg")])
def test_an_absent_package_is_an_error_with_a_remedy(name: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(DependencyError, match=f"metric {name} needs the package {package}") as caught:
        load_metric(name)
    assert f"pip install {package}" in sentence_of(caught.value)


def test_lpips_is_a_distance_of_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    class Network(torch.nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            assert a.shape == b.shape
            assert a.amin() >= -1
            assert a.amax() <= 1
            return (a - b).abs().mean(dim=(1, 2, 3), keepdim=True)

    def make(**options: Any) -> Network:
        asked.update(options)
        return Network()

    monkeypatch.setitem(sys.modules, "lpips", SimpleNamespace(LPIPS=make))
    metric = load_metric("lpips", MetricSettings(image_size=64))
    assert asked["net"] == "vgg"
    features = metric.encode(images(), "query")
    scores = metric.score(select(features, [0]), features)
    assert not metric.higher_is_closer
    assert scores[0] == 0
    assert metric.rank(select(features, [0]), features)[:2].tolist() == [0, 1]


def test_dreamsim_is_the_cosine_of_its_embeddings(monkeypatch: pytest.MonkeyPatch) -> None:
    def preprocess(image: Image.Image) -> torch.Tensor:
        small = np.array(image.convert("RGB").resize((8, 8)), np.float32) / 255
        return torch.from_numpy(small.transpose(2, 0, 1))[None]

    def dreamsim(**options: Any) -> tuple[Any, Any]:
        if options["cache_dir"] == "nothing":
            raise OSError("no route to host")
        return SimpleNamespace(embed=lambda batch: batch.flatten(1)), preprocess

    monkeypatch.setitem(sys.modules, "dreamsim", SimpleNamespace(dreamsim=dreamsim))
    metric = load_metric("dreamsim", MetricSettings(weights="somewhere"))
    features = metric.encode(images(), "query")
    a, b = (features["vector"][i].double() for i in (0, 2))
    expected = float(a @ b / (a.norm() * b.norm()))
    assert metric.score(select(features, [0]), select(features, [2]))[0] == pytest.approx(expected, abs=1e-6)
    with pytest.raises(ModelError, match="can't be loaded in nothing: no route"):
        load_metric("dreamsim", MetricSettings(weights="nothing"))


@pytest.mark.thorough
def test_gram_reads_conv5_1_of_torchvisions_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"gram needs the file .*vgg19-dcbb9e9d\.pth, about 575 MB") as caught:
        load_metric("gram", MetricSettings(weights=str(tmp_path)))
    assert re.search("download https://.*, and name its folder with --weights", sentence_of(caught.value))
    torch.manual_seed(0)
    network = vgg19()
    assert len(network) == 29  # torchvision's layer 28 is conv5_1
    weights = {f"features.{name}": tensor for name, tensor in network.state_dict().items()}
    torch.save({**weights, "features.30.weight": torch.zeros(1), "classifier.0.bias": torch.zeros(1)}, tmp_path / FILE)
    sound = load_metric("gram", MetricSettings(weights=str(tmp_path), image_size=64))
    row = load_metric("gram", MetricSettings(weights=str(tmp_path), image_size=64, parity="published"))
    features, rows = (metric.encode(images()[:2], "query")["vector"] for metric in (sound, row))
    assert features.shape == (2, 512 * 512)
    torch.testing.assert_close(rows, features.reshape(2, 512, 512)[:, -1])
    assert sound.score({"vector": features[:1]}, {"vector": features})[0] == pytest.approx(1.0, abs=1e-5)
    flat = torch.tensor([[[1.0, 2.0]], [[0.0, 3.0]]])
    assert gram(flat).tolist() == [[5.0, 6.0], [6.0, 9.0]]
    (tmp_path / FILE).write_bytes(b"no weights")
    with pytest.raises(ModelError, match="can't be loaded as VGG-19"):
        load_metric("gram", MetricSettings(weights=str(tmp_path)))


def test_ffa_averages_the_patches_under_the_mask(tmp_path: Path) -> None:
    weights = dinov2_in(tmp_path)
    network = load_network(weights, torch.device("cpu"))
    picture = images()[2].resize((32, 32))

    def left(image: Image.Image) -> Image.Image:
        mask = Image.new("L", image.size)
        mask.paste(255, (0, 0, image.width // 2, image.height))
        return mask

    def vector(cut: Any) -> torch.Tensor:
        metric = ForegroundAverage(network, weights, 32, cut)
        return metric.encode([picture], "query")["vector"][0]

    black = picture.copy()
    black.paste((0, 0, 0), (16, 0, 32, 32))
    mean, std = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    pixels = torch.tensor((np.array(black) / 255 - mean) / std, dtype=torch.float32).permute(2, 0, 1)[None]
    with torch.inference_mode():
        tokens = network(pixel_values=pixels).last_hidden_state[0, 1:].reshape(4, 4, -1)
    torch.testing.assert_close(vector(left), tokens[:, :2].mean(dim=(0, 1)), atol=1e-5, rtol=1e-4)
    everything = vector(lambda image: Image.new("L", image.size, 255))
    assert not torch.allclose(vector(left), everything)
    nothing = vector(lambda image: Image.new("L", image.size))  # no subject found: all of a black image
    assert torch.isfinite(nothing).all()


def test_ffa_takes_masks_that_are_given(tmp_path: Path) -> None:
    weights = dinov2_in(tmp_path)
    masks = tmp_path / "masks"
    (masks / "two").mkdir(parents=True)
    picture = images()[2].resize((32, 32))
    half = Image.new("L", (16, 16))  # of another size: brought to the image's
    half.paste(255, (0, 0, 8, 16))
    half.save(masks / "a.png")
    Image.new("L", (32, 32), 255).save(masks / "two" / "a.png")
    settings = MetricSettings(weights=str(tmp_path / "dinov2"), image_size=32, masks=str(masks))
    metric = load_metric("ffa", settings)

    def left(image: Image.Image) -> Image.Image:
        return half.resize(image.size, Image.Resampling.NEAREST)

    network = load_network(weights, torch.device("cpu"))
    found = metric.encode_files([picture, picture], [Path("one/a.jpg"), Path("two/a.jpg")], "query")["vector"]
    cut = ForegroundAverage(network, weights, 32, left).encode([picture], "query")["vector"][0]
    torch.testing.assert_close(found[0], cut)
    assert not torch.allclose(found[0], found[1])  # the longer path counts
    with pytest.raises(UsageError, match=r"three/b\.jpg has no mask: .*b\.png is missing"):
        metric.encode_files([picture], [Path("three/b.jpg")], "query")
    with pytest.raises(UsageError, match="needs the images' files"):
        metric.encode([picture], "query")
    with pytest.raises(UsageError, match="masks are expected there"):
        load_metric("ffa", MetricSettings(weights=str(tmp_path / "dinov2"), masks=str(tmp_path / "none")))
    one, two, before = Path("one/a.jpg"), Path("two/a.jpg"), metric.fingerprint()
    key = metric.file_key(one)
    assert key not in ("", metric.file_key(two)), "stored features depend on the mask of the image"
    half.point(lambda value: 255 - value).save(masks / "a.png")
    assert metric.file_key(one) not in (key, metric.file_key(two))
    assert metric.fingerprint() == before, "one mask that changes leaves the features of other images valid"


@pytest.mark.thorough
def test_random_weights_come_from_the_seed_and_are_named_random() -> None:
    first, again = (load_metric("dinov2-aas-random") for _ in range(2))
    pictures = images()[:2]
    features = first.encode(pictures, "query")
    torch.testing.assert_close(features["q"], again.encode(pictures, "query")["q"])
    assert features["q"].shape[2:] == (6, 257, 64)  # ViT-S/14 at 224 px
    assert first.fingerprint()["weights"] == "random, seed 2334"
    assert "RANDOM" in describe_metric("dinov2-aas-random").title
    assert first.score(select(features, [0]), features)[0] == pytest.approx(1.0, abs=1e-5)
