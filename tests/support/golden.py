"""Where the golden numbers lie: beside the project, or where DIFFSIM_GOLDEN says."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.support.paths import DATA, ROOT

GOLDEN = Path(os.environ.get("DIFFSIM_GOLDEN") or ROOT.parent / "shared" / "golden")
IMAGES = sorted((DATA / "golden_images").glob("*.png"))
needs_golden = pytest.mark.skipif(
    not GOLDEN.is_dir(), reason="the whole set of golden numbers is not beside the project (or set DIFFSIM_GOLDEN)"
)


def numbers(name: str) -> dict[str, Any]:
    """The numbers of one file of the whole set."""
    loaded: dict[str, Any] = json.loads((GOLDEN / f"{name}.json").read_text())
    return loaded


def images() -> list[Image.Image]:
    """The six images, decoded as the published code decodes them: alpha is dropped."""
    from retrieval.images.decoding import DecodeRules, read_image

    return [read_image(path, DecodeRules(alpha="drop"))[0] for path in IMAGES]


def dinov2_at_98_px(folder: Path) -> Path:
    """The tiny DINOv2 at its own 98 px: interpolation of position embeddings changed between library versions."""
    for file in (GOLDEN / "tiny" / "dinov2").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    path = folder / "preprocessor_config.json"
    stated = json.loads(path.read_text()) | {"size": {"shortest_edge": 112}, "crop_size": {"height": 98, "width": 98}}
    path.write_text(json.dumps(stated))
    return folder


def tiny_dit(folder: Path) -> Path:
    """The tiny DiT with the tiny VAE, as people have an original checkpoint: 128 px, layers 0 and 1."""
    (folder / "vae").symlink_to(GOLDEN / "tiny" / "sd15" / "vae")
    (folder / "dit.safetensors").symlink_to(GOLDEN / "tiny" / "dit_tiny.safetensors")
    (folder / "config.json").write_text('{"num_attention_heads": 4}')
    return folder
