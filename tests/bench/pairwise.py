"""Compare re-ranking from an index with the published way, which runs both networks for every pair of files.

The tiny Stable Diffusion of the tests, 512 pixels a side. The published way follows its description: for every
pair, both images are decoded, encoded and noised, the whole UNet runs over both guidance branches of each, and four
attention calls are made.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from index_store.reader import IndexReader
from retrieval import BuildSettings, build_index
from retrieval.images.decoding import DecodeRules, read_image
from retrieval.models.diffusion.sd15 import StableDiffusion15
from retrieval.models.modes import SD15_MODES
from retrieval.models.registry import load_extractor
from retrieval.sample_images.pictures import gallery
from retrieval.scoring.aas import QKV
from retrieval.settings import ModelSettings
from tests.bench.published import published_loop
from tests.bench.timing import Row, in_turns
from tests.support.reranking import scores_of

TINY = Path(__file__).parents[1] / "data" / "tiny_sd15"
CANDIDATES = 50
PAIRS = 5  # that the published way scores a round: its time grows with their number
CPU = BuildSettings(device="cpu")
TARGET = SD15_MODES["style"].target


@torch.inference_mode()
def published_call(model: StableDiffusion15, first: Path, second: Path) -> float:
    """Score one pair of files as the published code does."""
    tensors = []
    for path, role in ((first, "query"), (second, "gallery")):
        pixels = model.prepare(read_image(path, DecodeRules())[0])[None]
        held: list[QKV] = []
        hook = _hold(model, held)
        noisy = model.noisy_latents(pixels, [TARGET.timestep], role)[TARGET.timestep]  # type: ignore[arg-type]
        sample, prompts = model.branch_inputs(noisy)
        model.network(sample, TARGET.timestep, encoder_hidden_states=prompts)
        hook.remove()
        tensors += held
    return float(published_loop(*tensors)[0])


def _hold(model: StableDiffusion15, held: list[QKV]) -> torch.utils.hooks.RemovableHandle:
    """Keep the layer's Q, K and V of the next forward pass."""
    module = model.attention(TARGET.layer)

    def keep(_: object, arguments: tuple[torch.Tensor, ...]) -> None:
        parts = (project(arguments[0]) for project in (module.to_q, module.to_k, module.to_v))
        held.append(QKV(*(p.unflatten(-1, (module.heads, -1)).transpose(1, 2)[None] for p in parts)))

    return module.register_forward_pre_hook(keep)


def pairwise(folder: Path) -> list[Row]:
    """Time both ways and check that their scores agree."""
    images = folder / "fifty"
    images.mkdir()
    for number, drawn in zip(range(CANDIDATES), gallery(512), strict=False):
        Image.fromarray(drawn.pixels).save(images / f"{number:02d}.jpg")
    files = sorted(images.glob("*.jpg"))
    index = folder / "fifty.diffsim"
    build_index(images, index, modes=["style"], model="sd15", weights=str(TINY), encoders={}, run=CPU)
    settings = ModelSettings(model="sd15", weights=str(TINY))
    model = load_extractor(settings, torch.device("cpu"), offline=True)
    assert isinstance(model, StableDiffusion15)
    reader = IndexReader(index)
    query, rows = encoded(model, files[0]), list(range(CANDIDATES))

    def scored(query: QKV) -> np.ndarray:
        return scores_of([query], [rows], partial(reader.attention, "style"))[0]

    def published() -> np.ndarray:
        return np.array([published_call(model, files[0], file) for file in files[::step]])

    step = CANDIDATES // PAIRS
    np.testing.assert_allclose(scored(query)[::step], published(), atol=2e-3)
    ways: dict[str, Callable[[], object]] = {
        "at hand": lambda: scored(query),
        "encoded": lambda: scored(encoded(model, files[0])),
        "published": published,
    }
    times = in_turns(ways, rounds=3)
    theirs = times["published"] * step
    return [
        (
            f"{CANDIDATES} pairs of files, tiny SD 1.5, the published way",
            f"{theirs / 1e3:.1f} s",
            f"networks and all; {PAIRS} pairs were timed",
        ),
        ("  re-rank them from the index, the query's tensors at hand", f"{times['at hand']:.1f} ms", "from page cache"),
        ("  ratio", f"{theirs / times['at hand']:.0f} x", "higher is better"),
        ("  the same with the query decoded and encoded from its file", f"{times['encoded']:.1f} ms", ""),
        ("  ratio", f"{theirs / times['encoded']:.0f} x", "higher is better"),
    ]


def encoded(model: StableDiffusion15, file: Path) -> QKV:
    """Compute a query's tensors from its file."""
    pixels = model.prepare(read_image(file, DecodeRules())[0])[None]
    return model.extract(pixels, [TARGET], "query")[TARGET]
