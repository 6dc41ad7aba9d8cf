"""Stable Diffusion 1.5 against numbers of the published code, on its tiny random model.

The clone carries that model, the six images and a few of the numbers (tests/data/golden_sd15.json); every number is
checked where the whole set lies beside the project.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from retrieval.errors import ModelError, UsageError
from retrieval.images.decoding import DecodeRules, read_image
from retrieval.models.diffusion.noise import draws_for
from retrieval.models.diffusion.sd15 import LAYERS, StableDiffusion15
from retrieval.models.modes import Target, at_step
from retrieval.models.registry import load_extractor
from retrieval.scoring.aas import QKV, Comparison, aligned_attention_scores
from retrieval.settings import ModelSettings
from tests.slices import EVERY, loads_model_libraries, slice_of
from tests.support.golden import EVERY_GOLDEN, GOLDEN, needs_every_golden
from tests.support.paths import DATA

pytestmark = loads_model_libraries

TINY = DATA / "tiny_sd15"

FIELDS: dict[str, Comparison] = {
    "cosine": Comparison(),
    "mse": Comparison("mse"),
    "cosine_ab": Comparison(directions="query_to_candidate"),
    "cosine_ba": Comparison(directions="candidate_to_query"),
    "cosine_cond": Comparison(),
    "mse_cond": Comparison("mse"),
}
TOLERANCE = {"cosine": 5e-4, "mse": 5e-4}


def load(prompt: str = "High quality image", noise: str = "pairwise", **settings: Any) -> StableDiffusion15:
    chosen = ModelSettings(
        model="sd15",
        weights=str(TINY),
        image_size=128,
        prompt=prompt,
        noise=noise,
        **settings,  # type: ignore[arg-type]
    )
    extractor = load_extractor(chosen, torch.device("cpu"), offline=True)
    assert isinstance(extractor, StableDiffusion15)
    return extractor


@pytest.fixture(scope="module")
def extractor() -> StableDiffusion15:
    return load()


@pytest.fixture(scope="module")
def pixels(extractor: StableDiffusion15) -> np.ndarray:
    paths = sorted((DATA / "golden_images").glob("*.png"))
    return np.stack([extractor.prepare(read_image(path, DecodeRules(alpha="drop"))[0]) for path in paths])


def matrix(query: QKV, gallery: QKV, field: str) -> np.ndarray:
    if field.endswith("cond"):
        query, gallery = (QKV(*(t[:, 1:] for t in (x.q, x.k, x.v))) for x in (query, gallery))
    rows = [aligned_attention_scores(query[i : i + 1], gallery, FIELDS[field]) for i in range(len(query))]
    return torch.stack(rows).numpy()


def largest_difference(extractor: StableDiffusion15, pixels: np.ndarray, numbers: dict[str, Any]) -> dict[str, float]:
    """Compare every ``module|step`` of ``numbers`` and return the largest difference by field."""
    targets = {key: target_of(key) for key in numbers}
    wanted = list(dict.fromkeys(targets.values()))
    query, gallery = (extractor.extract(pixels, wanted, role) for role in ("query", "gallery"))
    worst = dict.fromkeys(FIELDS, 0.0)
    for key, target in targets.items():
        for field in FIELDS:
            found = matrix(query[target], gallery[target], field)
            worst[field] = max(worst[field], float(np.abs(found - np.array(numbers[key][field])).max()))
    return worst


def target_of(key: str) -> Target:
    module, step, _ = key.split("|")
    layers = {path: layer for layer, path in LAYERS.items()}
    return at_step(layers[module], int(step))


def assert_within_tolerance(worst: dict[str, float]) -> None:
    assert {field: error for field, error in worst.items() if error > TOLERANCE[field.split("_")[0]]} == {}


@pytest.mark.parametrize(
    ("kind", "noise"), [("pairwise", "pairwise"), pytest.param("cached", "shared", marks=pytest.mark.thorough)]
)
def test_the_numbers_in_the_clone(kind: str, noise: str, pixels: np.ndarray) -> None:
    numbers = json.loads((DATA / "golden_sd15.json").read_text())[kind]
    assert_within_tolerance(largest_difference(load(noise=noise), pixels, numbers))


@pytest.mark.slow
@needs_every_golden
@pytest.mark.parametrize("prompt", ["High quality image", ""])
@pytest.mark.parametrize(("kind", "noise"), [("pairwise", "pairwise"), ("cached", "shared")])
def test_every_golden_number(kind: str, noise: str, prompt: str, pixels: np.ndarray) -> None:
    numbers = json.loads((EVERY_GOLDEN / "golden.json").read_text())[kind]
    chosen = {key: value for key, value in numbers.items() if key.split("|")[2] == prompt}
    assert len(chosen) == 28
    worst = largest_difference(load(prompt, noise), pixels, chosen)
    print(kind, repr(prompt), {field: f"{error:.1e}" for field, error in worst.items()})
    assert_within_tolerance(worst)


@pytest.mark.parametrize(
    ("folder", "layers"),
    [(GOLDEN, 5), pytest.param(EVERY_GOLDEN, 7, marks=[pytest.mark.slow, needs_every_golden])],
    ids=["the clone's", "all"],
)
def test_every_stage_on_the_way(folder: Path, layers: int, extractor: StableDiffusion15, pixels: np.ndarray) -> None:
    from safetensors.torch import load_file

    stages = load_file(folder / "stages_sd15.safetensors")
    mean, std = extractor.encode(pixels)
    draws = draws_for("query", "shared", 2334, (4, 16, 16))
    # The seed gives the same uniform numbers everywhere; their logarithms and cosines differ in the last bits.
    torch.testing.assert_close(draws.latent, stages["eps_draw1"], rtol=0, atol=1e-5)
    torch.testing.assert_close(draws.noise, stages["eps_draw2"], rtol=0, atol=1e-5)
    latent = 0.18215 * (mean + std * draws.latent)
    # What contiguous pixels differ by from the published code's transposed ones: 1.8e-3 of the VAE's mean (unscaled)
    # and 1e-3 of Q/K/V, as measured in the golden README.
    torch.testing.assert_close(latent, stages["cached.s600.latents"], rtol=0, atol=0.18215 * 1.9e-3)
    held = [layer for layer, path in LAYERS.items() if f"cached.s600.{path}.q" in stages]
    assert len(held) == layers
    found = load(noise="shared").extract(pixels, [at_step(layer, 600) for layer in held], "gallery")
    for layer in held:
        tensors = found[at_step(layer, 600)]
        for name, tensor in (("q", tensors.q), ("k", tensors.k), ("v", tensors.v)):
            expected = stages[f"cached.s600.{LAYERS[layer]}.{name}"]
            torch.testing.assert_close(tensor[: len(expected)], expected, rtol=0, atol=1.5e-3)


def test_one_pass_for_several_layers_equals_a_pass_each(extractor: StableDiffusion15, pixels: np.ndarray) -> None:
    targets = [at_step(layer, 600) for layer in ("U_1", "D_0", "M")]
    together = extractor.extract(pixels[:2], targets, "gallery")
    for target in targets:
        alone = extractor.extract(pixels[:2], [target], "gallery")[target]
        torch.testing.assert_close(alone.q, together[target].q, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(alone.v, together[target].v, rtol=1e-5, atol=1e-5)


def test_the_conditional_branch_alone_is_the_second_of_both(extractor: StableDiffusion15, pixels: np.ndarray) -> None:
    target = at_step("U_0", 900)
    both = extractor.extract(pixels[:2], [target], "gallery")[target]
    cond = load(branches="cond").extract(pixels[:2], [target], "gallery")[target]
    assert cond.q.shape[1] == 1
    torch.testing.assert_close(cond.k, both.k[:, 1:], rtol=0, atol=2e-5)


def test_an_image_does_not_depend_on_its_batch(extractor: StableDiffusion15, pixels: np.ndarray) -> None:
    target = at_step("U_0", 900)
    together = extractor.extract(pixels, [target], "gallery")[target]
    alone = extractor.extract(pixels[3:4], [target], "gallery")[target]
    torch.testing.assert_close(alone.q, together.q[3:4], rtol=0, atol=2e-5)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    slice_of([("bfloat16", 5e-2), ("float16", 1e-2)], lambda dtype, tolerance: dtype == "float16"),
)
def test_half_precision_stays_near(dtype: str, tolerance: float, pixels: np.ndarray) -> None:
    numbers = json.loads((DATA / "golden_sd15.json").read_text())["pairwise"]
    deep = {key: value for key, value in numbers.items() if EVERY or key.startswith("up_blocks.1|")}
    worst = largest_difference(load(dtype=dtype), pixels, deep)
    assert 0 < worst["cosine"] < tolerance


@pytest.mark.thorough
def test_other_settings_give_another_fingerprint(tmp_path: Path) -> None:
    plain = load().fingerprint()
    assert load().fingerprint() == plain
    assert load(seed=1).fingerprint() != plain
    assert load(branches="cond").fingerprint() != plain
    assert load("a cat").fingerprint() != plain


def test_wrong_layers_sizes_and_folders_are_errors(
    extractor: StableDiffusion15, pixels: np.ndarray, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="D_0, D_1"):
        extractor.extract(pixels[:1], [Target("U_9", 101)], "query")
    cpu = torch.device("cpu")
    with pytest.raises(UsageError, match="multiple of 64"):
        load_extractor(ModelSettings(model="sd15", weights=str(TINY), image_size=100), cpu, True)
    with pytest.raises(ModelError, match="does not exist"):
        load_extractor(ModelSettings(model="sd15", weights=str(tmp_path / "none")), cpu, True)
    with pytest.raises(ModelError, match="unet, vae"):
        load_extractor(ModelSettings(model="sd15", weights=str(tmp_path)), cpu, True)


def test_damaged_weights_are_an_error(tmp_path: Path) -> None:
    import shutil

    shutil.copytree(TINY, tmp_path / "sd15")
    file = tmp_path / "sd15" / "vae" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ModelError, match="vae of sd15 can't be loaded"):
        load_extractor(ModelSettings(model="sd15", weights=str(tmp_path / "sd15")), torch.device("cpu"), True)
