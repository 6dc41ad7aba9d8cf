"""`python -m tests.bench.build_cost [WEIGHTS]`: what it costs to index one image, against the published way.

WEIGHTS is a folder of Stable Diffusion 1.5; random weights of tests/support/real_size.py will do. Without it the
program counts operations on torch's meta device and measures no time. The published way follows its description: for
every mode, one VAE pass and one whole UNet pass over both guidance branches.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from retrieval.models.diffusion.sd15 import LoadedParts, StableDiffusion15
from retrieval.models.modes import DEFAULT_MODES, SD15_MODES, Target
from retrieval.models.protocols import Pixels
from retrieval.models.registry import describe_extractor, load_extractor
from retrieval.models.weights.finding import find_weights
from retrieval.settings import ModelSettings
from tests.bench.timing import Row, finish
from tests.support.weights.real_size import TINY, real_size_unet, real_size_vae

TARGETS = [SD15_MODES[mode].target for mode in DEFAULT_MODES]


def published_pass(model: StableDiffusion15, pixels: Pixels, target: Target) -> object:
    """Compute one image for one mode as the published code does, up to the scores."""
    noisy = model.noisy_latents(pixels, [target.timestep], "gallery")[target.timestep]
    sample, prompts = model.branch_inputs(noisy)
    return model.network(sample, target.timestep, encoder_hidden_states=prompts)


def ways(model: StableDiffusion15) -> dict[str, Callable[[], object]]:
    """Return both ways to compute one image in three modes."""
    pixels = model.prepare(Image.effect_noise((512, 512), 80.0).convert("RGB"))[None]

    @torch.inference_mode()
    def published() -> object:
        return [published_pass(model, pixels, target) for target in TARGETS]

    return {"ours": lambda: model.extract(pixels, TARGETS, "gallery"), "published": published}


def count(model: StableDiffusion15) -> dict[str, float]:
    """Compare the operations of one image in three modes."""
    flops = {name: flops_of(run) for name, run in ways(model).items()}
    return {
        "tflop": flops["ours"] / 1e12,
        "published_tflop": flops["published"] / 1e12,
        "flop_share": flops["ours"] / flops["published"],
    }


def measure(model: StableDiffusion15, rounds: int = 2) -> dict[str, float]:
    """Compare, in turns, the time of one image in three modes."""
    seconds: dict[str, list[float]] = {"ours": [], "published": []}
    for _ in range(rounds):
        for name, run in ways(model).items():
            finish()
            start = time.perf_counter()
            run()
            finish()
            seconds[name].append(time.perf_counter() - start)
    return {
        "seconds": statistics.median(seconds["ours"]),
        "published_seconds": statistics.median(seconds["published"]),
        "time_share": statistics.median(seconds["ours"]) / statistics.median(seconds["published"]),
    }


def flops_of(run: Callable[[], object]) -> int:
    """Count the operations of products and convolutions that ``run`` computes, on any device."""
    # torch has no formula for the kernel of attention that a CPU has, and would count it as nothing.
    on_a_cpu = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops}
    with FlopCounterMode(display=False, custom_mapping=on_a_cpu) as counter:
        run()
    return counter.get_total_flops()


def _attention_flops(query: Any, key: Any, value: Any, *_: object, **__: object) -> int:
    return int(sdpa_flop_count(query, key, value))


def shapes_alone() -> StableDiffusion15:
    """Return SD 1.5 at its real size on torch's meta device, which computes shapes and no numbers."""
    with torch.device("meta"):
        unet, vae, prompts = real_size_unet(), real_size_vae(), torch.empty(2, 77, 768)
    return StableDiffusion15(
        LoadedParts(
            weights=find_weights(describe_extractor("sd15"), TINY, offline=True),  # named, not loaded
            unet=unet.eval(),
            vae=vae.eval(),
            prompts=prompts,
            alpha_bars=torch.linspace(1, 0, 1000),  # no count depends on it
            image_size=512,
            settings=ModelSettings(model="sd15"),
            noise="pairwise",
        )
    )


def count_rows() -> list[Row]:
    """Count operations on the meta device, which takes a second on any machine."""
    f = count(shapes_alone())
    return [
        ("sd15, real size: one image, three modes", f"{f['tflop']:.2f} TFLOP", "counted"),
        ("  the published way", f"{f['published_tflop']:.2f} TFLOP", "counted"),
        ("  share of its FLOPs", f"{f['flop_share']:.3f}", "lower is better"),
    ]


def time_rows(device: str, weights: Path) -> list[Row]:
    """Time one image."""
    f = measure(load(weights, device))
    return [
        ("sd15, real size: one image, three modes", f"{f['seconds']:.2f} s", ""),
        ("  the published way", f"{f['published_seconds']:.2f} s", ""),
        ("  share of its time", f"{f['time_share']:.2f}", "lower is better"),
    ]


def load(weights: Path, device: str) -> Any:
    """Load the model with its defaults."""
    return load_extractor(ModelSettings(model="sd15", weights=str(weights)), torch.device(device), offline=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, measure, print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", type=Path, nargs="?")
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    counted = count(shapes_alone())
    print(json.dumps(counted | (measure(load(asked.weights, asked.device)) if asked.weights else {}), indent=1))


if __name__ == "__main__":
    main()
