"""`python -m tests.bench.build_cost WEIGHTS`: what indexing one image costs against the published way, at real size.

WEIGHTS is a folder of Stable Diffusion 1.5; random weights will do (tests/real_size.py writes them). The published way,
written from its description: for every mode a VAE pass and a whole UNet pass over both guidance branches.
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
from torch.utils.flop_counter import FlopCounterMode

from retrieval.backbones import Pixels, load_extractor
from retrieval.backbones.sd15 import StableDiffusion15
from retrieval.modes import DEFAULT_MODES, SD15_MODES, Target
from retrieval.settings import ModelSettings
from tests.bench.timing import finish


def published_pass(model: StableDiffusion15, pixels: Pixels, target: Target) -> object:
    """Run what the published code runs for one image and mode, up to the scores."""
    noisy = model.noisy_latents(pixels, [target.timestep], "gallery")[target.timestep]
    sample, prompts = model.branch_inputs(noisy)
    return model.network(sample, target.timestep, encoder_hidden_states=prompts)


def measure(model: StableDiffusion15, rounds: int = 2) -> dict[str, float]:
    """Compare FLOPs and, in turns, the time of one image in three modes."""
    targets = [SD15_MODES[mode].target for mode in DEFAULT_MODES]
    pixels = model.prepare(Image.effect_noise((512, 512), 80.0).convert("RGB"))[None]

    def ours() -> object:
        return model.extract(pixels, targets, "gallery")

    @torch.inference_mode()
    def published() -> object:
        return [published_pass(model, pixels, target) for target in targets]

    flops = {name: _flops(run) for name, run in (("ours", ours), ("published", published))}
    seconds: dict[str, list[float]] = {"ours": [], "published": []}
    for _ in range(rounds):
        for name, run in (("ours", ours), ("published", published)):
            finish()
            start = time.perf_counter()
            run()
            finish()
            seconds[name].append(time.perf_counter() - start)
    return {
        "tflop": flops["ours"] / 1e12,
        "published_tflop": flops["published"] / 1e12,
        "flop_share": flops["ours"] / flops["published"],
        "seconds": statistics.median(seconds["ours"]),
        "published_seconds": statistics.median(seconds["published"]),
        "time_share": statistics.median(seconds["ours"]) / statistics.median(seconds["published"]),
    }


def _flops(run: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def load(weights: Path, device: str) -> Any:
    """Load the model with its defaults."""
    return load_extractor(ModelSettings(model="sd15", weights=str(weights)), torch.device(device), offline=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, measure, print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print(json.dumps(measure(load(asked.weights, asked.device)), indent=1))


if __name__ == "__main__":
    main()
