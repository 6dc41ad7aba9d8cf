"""The interface of all metrics, those that need no weights, and the errors of those that need some."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cli.advice import sentence_of
from retrieval.errors import ModelError, UsageError
from retrieval.metrics.base import MetricSettings
from retrieval.metrics.ensemble import load_ensemble, majority
from retrieval.metrics.features import join, select
from retrieval.metrics.registry import METRICS, describe_metric, load_metric
from tests.metrics.test_metrics import TINY_SD15, matrix
from tests.models.test_vit import write_tiny_models
from tests.slices import loads_model_libraries
from tests.support.golden import images

pytestmark = loads_model_libraries

OFFLINE = ("cells", "rgb-hist", "lab-hist", "ssim")


@pytest.mark.parametrize("name", OFFLINE)
def test_metrics_without_weights_rank_an_image_before_its_neighbour(name: str) -> None:
    metric = load_metric(name)
    pictures = images()
    features = metric.encode(pictures, "query")
    assert metric.one_role
    query = select(features, [0])
    assert metric.score(query, features)[0] == pytest.approx(1.0, abs=1e-4)
    assert metric.rank(query, features)[:2].tolist() == [0, 1]  # itself, then its near-duplicate
    assert all(tensor.device.type == "cpu" for tensor in features.values())
    one_by_one = join([metric.encode([picture], "gallery") for picture in pictures])
    np.testing.assert_allclose(metric.score(query, one_by_one), metric.score(query, features), atol=1e-5)
    assert json.loads(json.dumps(metric.fingerprint())) == metric.fingerprint()


def test_ssim_is_that_of_scikit_image() -> None:
    from skimage.metrics import structural_similarity

    from retrieval.images.preprocessing import resize_square
    from retrieval.metrics.histograms import pixels_of
    from retrieval.models.cells.histograms import grey

    a, b = (grey(pixels_of(resize_square(image, 128)))[0].numpy() for image in images()[:2])
    expected, full = structural_similarity(
        a, b, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
    )
    found = matrix(load_metric("ssim"), images()[:2])[0, 1]
    assert found == pytest.approx(full[5:-5, 5:-5].mean(), abs=1e-4)
    assert found == pytest.approx(expected, abs=1e-3)


def test_features_of_the_diffusion_ablation_are_min_max_normalised() -> None:
    settings = MetricSettings(weights=TINY_SD15, image_size=128, layer="M", noise="shared")
    metric = load_metric("diffusion-feats", settings)
    vectors = metric.encode(images()[:2], "query")["vector"]
    assert vectors.amin(dim=1).tolist() == [0.0, 0.0]
    assert vectors.amax(dim=1).tolist() == [1.0, 1.0]
    assert vectors.shape[1] % 2 == 0  # both branches
    assert metric.score({"vector": vectors[:1]}, {"vector": vectors})[0] == pytest.approx(1.0, abs=1e-6)


def test_vision_transformer_metrics_are_symmetric_and_1_for_the_same_image(tmp_path: Path) -> None:
    write_tiny_models(tmp_path)
    for name, family in (("clip-aas", "clip"), ("dinov2-aas", "dinov2"), ("clip-feats", "clip")):
        metric = load_metric(name, MetricSettings(weights=str(tmp_path / family)))
        found = matrix(metric, images()[:3])
        np.testing.assert_allclose(np.diag(found), 1.0, atol=1e-5)
        np.testing.assert_allclose(found, found.T, atol=1e-5)
    unknown = load_metric("clip-aas", MetricSettings(weights=str(tmp_path / "clip"), layer="9"))
    with pytest.raises(UsageError, match=r"unknown layer '9' of clip-aas; known: 0, 1, last"):
        unknown.encode(images()[:1], "query")


def test_a_vote_of_two_images_is_the_majority() -> None:
    three = np.array([[0.9, 0.1], [0.2, 0.8], [5.0, 4.0]], np.float32)
    assert majority(three).tolist() == [1.0, 0.0]
    tied = np.array([[1.0, 1.0], [0.0, 1.0], [1.0, 0.0]], np.float32)
    assert majority(tied).tolist() == [0.5, 0.5]
    ranking = np.array([[3, 2, 1], [3, 2, 1], [1, 2, 3]], np.float32)
    assert majority(ranking).tolist() == [1.0, 0.5, 0.0]


def test_an_ensemble_is_a_metric() -> None:
    names = ("cells", "lab-hist", "ssim")
    ensemble = load_ensemble(names, {name: load_metric(name) for name in names})
    features = ensemble.encode(images(), "query")
    assert ensemble.rank(select(features, [0]), features)[:2].tolist() == [0, 1]
    with pytest.raises(UsageError, match="no score for one pair"):
        ensemble.need_scores()
    with pytest.raises(UsageError, match="odd number"):
        load_ensemble(names[:2], {})
    with pytest.raises(UsageError, match="own settings"):
        load_metric("ensemble", MetricSettings(layer="U_0"))


def test_every_metric_states_title_and_licence_before_a_download() -> None:
    for name, entry in METRICS.items():
        assert entry.name == name
        assert entry.title
        assert entry.licence
        assert entry.loader.startswith("retrieval.metrics.")
        assert entry.repo or not entry.download_mb or entry.members or entry.needs or name == "gram"
        assert set(entry.members) <= set(METRICS)
    with pytest.raises(UsageError, match="unknown metric 'diffsim'; known: diffsim-s, mini"):
        describe_metric("diffsim")
    with pytest.raises(UsageError, match="unknown parity"):
        MetricSettings(parity="true")  # type: ignore[arg-type]


def test_missing_weights_are_an_error_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    for name in ("diffsim-s", "clip-aas", "dinov2", "diffsim-xl", "dit-256"):
        with pytest.raises(ModelError, match=rf"weights of {METRICS[name].repo} are needed") as caught:
            load_metric(name, offline=True)
        assert re.search(r"download about \d+ MB", sentence_of(caught.value))
    with pytest.raises(ModelError, match="ip_adapter does not exist"):
        load_metric("diffsim-c", MetricSettings(weights=TINY_SD15, image_size=128))
    metric = load_metric("diffsim-s", MetricSettings(weights=TINY_SD15, image_size=128, layer="U_7"))
    with pytest.raises(UsageError, match="unknown layer 'U_7' of sd15"):
        metric.encode(images()[:1], "query")


def test_importing_the_table_imports_nothing_heavy() -> None:
    code = "import sys, retrieval.metrics.registry; print({'torch', 'numpy', 'PIL'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
