"""Golden numbers: what the published code computes on tiny random models.

tests/data/golden holds what the default tests compare. The whole set, for the slow tests, lies beside the project or
where DIFFSIM_GOLDEN says; its README tells how it was made.
"""

import json
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.support.paths import DATA, ROOT

EVERY_GOLDEN = Path(os.environ.get("DIFFSIM_GOLDEN") or ROOT.parent / "shared" / "golden")
GOLDEN = DATA / "golden"
IMAGES = sorted((DATA / "golden_images").glob("*.png"))
needs_every_golden = pytest.mark.skipif(
    not EVERY_GOLDEN.is_dir(),
    reason="the whole set of golden numbers is not beside the project (or set DIFFSIM_GOLDEN)",
)


def numbers(name: str, folder: Path = GOLDEN) -> dict[str, Any]:
    """The numbers of one file, of the repository's part or of the whole set."""
    loaded: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    return loaded


def images() -> list[Image.Image]:
    """The six images, decoded as the published code decodes them: alpha is dropped."""
    from retrieval.images.decoding import DecodeRules, read_image

    return [read_image(path, DecodeRules(alpha="drop"))[0] for path in IMAGES]


@cache
def golden_models() -> Path:
    """A folder with the tiny models sd15, sdxl, clip, dinov2, ip_adapter and the file dit_tiny.safetensors.

    They hold the original weights up to the layers of the golden numbers, and random ones from there on.
    """
    import atexit

    from tests.support.weights.partial_weights import PARTIAL, complete

    folder = Path(tempfile.mkdtemp(prefix="golden-models-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    shutil.copytree(GOLDEN / "models", folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(f"*{PARTIAL}"))
    for partial in (GOLDEN / "models").rglob(f"*{PARTIAL}"):
        target = folder / partial.relative_to(GOLDEN / "models")
        complete(partial, target.with_name(target.name.replace(PARTIAL, ".safetensors")))
    for part in (DATA / "tiny_sd15").iterdir():
        (folder / "sd15" / part.name).symlink_to(part)
    sdxl = folder / "sdxl"
    shutil.copyfile(DATA / "tiny_sd15" / "vae" / _VAE, sdxl / "vae" / _VAE)
    for tokenizer in ("tokenizer", "tokenizer_2"):
        for file in ("vocab.json", "merges.txt"):
            shutil.copyfile(DATA / "tiny_sd15" / "tokenizer" / file, sdxl / tokenizer / file)
    return folder


_VAE = "diffusion_pytorch_model.safetensors"


def dinov2_at_98_px(folder: Path, models: Path | None = None) -> Path:
    """The tiny DINOv2 at its own 98 px: interpolation of position embeddings changed between library versions."""
    for file in ((models or golden_models()) / "dinov2").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    path = folder / "preprocessor_config.json"
    stated = json.loads(path.read_text()) | {"size": {"shortest_edge": 112}, "crop_size": {"height": 98, "width": 98}}
    path.write_text(json.dumps(stated))
    return folder


def tiny_dit(folder: Path, models: Path | None = None) -> Path:
    """The tiny DiT with the tiny VAE, as people have an original checkpoint: 128 px, layers 0 and 1."""
    models = models or golden_models()
    (folder / "vae").symlink_to(models / "sd15" / "vae")
    (folder / "dit.safetensors").symlink_to(models / "dit_tiny.safetensors")
    (folder / "config.json").write_text('{"num_attention_heads": 4}')
    return folder
