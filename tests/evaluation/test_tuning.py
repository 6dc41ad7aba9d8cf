"""Tuning an encoder: the published loss, a 2AFC that rises, and an encoder that is what was trained."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from retrieval.errors import DependencyError, UsageError
from retrieval.evaluation.triplets import Triplet
from retrieval.models.registry import load_embedder
from retrieval.models.vit.pooled import ViTEmbedder
from retrieval.tuning import TuneSettings, hinge, read_tuning_triplets, tune, two_afc
from tests.models.test_vit import write_tiny_models
from tests.slices import loads_model_libraries
from tests.support.bench_trees import nights, paint

pytestmark = loads_model_libraries

CPU = torch.device("cpu")


@pytest.fixture
def encoder(tmp_path: Path) -> ViTEmbedder:
    write_tiny_models(tmp_path / "models")
    loaded = load_embedder("clip", tmp_path / "models" / "clip", CPU, offline=True)
    assert isinstance(loaded, ViTEmbedder)
    return loaded


def stripes(folder: Path, count: int = 40) -> list[Triplet]:
    """The nearer image has the reference's direction of stripes and another colour; the farther one its colour."""
    chance, found = np.random.default_rng(0), []
    for number in range(count):
        colours = chance.integers(60, 255, (2, 3))
        flip, phase = number % 2, int(chance.integers(0, 4))
        pictures = []
        for colour, turned in ((0, flip), (1, flip), (0, 1 - flip)):
            wave = ((np.arange(32) + phase) // 4 % 2)[:, None] * np.ones((1, 32))
            wave = wave.T if turned else wave
            pictures.append((wave[:, :, None] * colours[colour]).astype(np.uint8))
        paths = [folder / f"{number}_{side}.png" for side in "abc"]
        folder.mkdir(exist_ok=True)
        for path, picture in zip(paths, pictures, strict=True):
            Image.fromarray(picture).save(path)
        found.append(Triplet(*paths))
    return found


def test_the_loss_is_the_published_hinge() -> None:
    reference = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    nearer = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    farther = torch.tensor([[0.0, 1.0], [0.6, 0.8]])
    # First: d0 = 0, d1 = 1, far beyond the margin: 0. Second: d0 = 1, d1 = 0.4: 0.05 - (0.4 - 1) = 0.65.
    assert float(hinge(reference, nearer, farther, 0.05)) == pytest.approx((0 + 0.65) / 2)
    assert float(hinge(reference[:1], nearer[:1], nearer[:1], 0.05)) == pytest.approx(0.05)


def test_tuning_raises_2afc_and_saves_what_was_trained(encoder: ViTEmbedder, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft", reason="peft (extra tune) is not installed")
    triplets = stripes(tmp_path / "stripes")
    train, held_out = triplets[:30], triplets[30:]
    settings = TuneSettings(epochs=20, batch_size=10, learning_rate=3e-3, dropout=0.0, margin=0.2)
    tuned = tune(encoder, train, held_out, tmp_path / "tuned", settings)
    assert tuned.after > tuned.before
    assert tuned.after >= 0.9
    assert tuned.losses[-1] < tuned.losses[0]
    assert tuned.parameters == 2 * 3 * 16 * (32 + 32)  # layers x projections x rank x (in + out)
    assert json.loads((tmp_path / "tuned" / "tuning.json").read_text())["result"]["after"] == tuned.after

    merged = load_embedder("clip", tmp_path / "tuned", CPU, offline=True)
    assert isinstance(merged, ViTEmbedder)
    pixels = {p: merged.prepare(Image.open(p)) for t in held_out for p in (t.reference, t.nearer, t.farther)}
    assert two_afc(merged, held_out, pixels) == tuned.after
    plain = load_embedder("clip", tmp_path / "models" / "clip", CPU, offline=True)
    assert isinstance(plain, ViTEmbedder)
    some = np.stack(list(pixels.values())[:4])
    untouched = plain.embed(some)
    adapter = peft.PeftModel.from_pretrained(plain.model, tmp_path / "tuned" / "adapter").eval()
    np.testing.assert_allclose(replace(plain, model=adapter).embed(some), merged.embed(some), atol=1e-5)
    assert np.abs(untouched - merged.embed(some)).max() > 1e-3
    from retrieval.indexing.build import build_index

    built = build_index(
        tmp_path / "stripes", tmp_path / "x.diffsim", model="cells", encoders={"clip": str(tmp_path / "tuned")}
    )
    assert built.items == 120
    with pytest.raises(UsageError, match="exists already"):
        tune(plain, train, held_out, tmp_path / "tuned", settings)


def test_without_peft_the_error_says_what_to_install(
    encoder: ViTEmbedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "peft", None)
    triplets = stripes(tmp_path / "stripes", 4)
    with pytest.raises(DependencyError, match=r"diffsim-retrieval\[tune\]"):
        tune(encoder, triplets[:2], triplets[2:], tmp_path / "tuned")
    assert not (tmp_path / "tuned").exists()


def test_triplets_to_learn_from_and_to_measure_with(tmp_path: Path) -> None:
    nights(tmp_path / "nights", 6, 4)
    data = tmp_path / "nights" / "data.csv"
    data.write_text(data.read_text().replace("test", "train").replace("1,1,0,8,", "1,1,0,5,", 1))
    train, held_out = read_tuning_triplets(data, 0)
    assert (len(train), len(held_out)) == (5, 4)  # one row has five votes only
    for name in "abcdef":
        paint(tmp_path / f"{name}.png", ord(name))
    own = tmp_path / "own.csv"
    own.write_text("reference,nearer,farther\n" + "".join(f"{a}.png,e.png,f.png\n" for a in "abcdab"))
    train, held_out = read_tuning_triplets(own, 0)
    assert {t.reference for t in train} & {t.reference for t in held_out} == set()
    assert len(train) + len(held_out) == 6
    own.write_text("reference,nearer,farther\na.png,e.png,f.png\n")
    with pytest.raises(UsageError, match="one reference only"):
        read_tuning_triplets(own, 0)
