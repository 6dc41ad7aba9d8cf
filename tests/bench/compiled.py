"""`python -m tests.bench.compiled WEIGHTS --dtype bfloat16`: what `--compile` gains, and what it costs before.

WEIGHTS is a folder of Stable Diffusion 1.5; random weights will do (tests/support/real_size.py writes them).
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from retrieval.encoding.compilation import compile_models
from retrieval.encoding.loaded_models import LoadedModels, load_models
from retrieval.models.modes import DEFAULT_MODES, SD15_MODES
from retrieval.scoring.aas import QKV, aligned_attention_scores
from retrieval.settings import ModelSettings
from tests.bench.timing import in_turns


def measure(models: LoadedModels, device: str, rounds: int) -> dict[str, float]:
    """Time one image in all modes, compiled and not, in turns; and compare the scores of two images."""
    first, second = (_noise(models, seed) for seed in (1, 2))
    queries = models.encode([first], "query").tensors
    plain = _scores(queries, models.encode([second], "gallery").tensors)
    begun = time.perf_counter()
    models = compile_models(models, 1)
    compiling = time.perf_counter() - begun
    compiled = _scores(queries, models.encode([second], "gallery").tensors)

    def eager() -> None:
        with torch.compiler.set_stance("force_eager"):
            models.encode_stored([first])

    milliseconds = in_turns({"eager": eager, "compiled": lambda: models.encode_stored([first])}, rounds)
    return {
        "compiling_s": compiling,
        "eager_s": milliseconds["eager"] / 1e3,
        "compiled_s": milliseconds["compiled"] / 1e3,
        "time_share": milliseconds["compiled"] / milliseconds["eager"],
        "score_difference": float(np.abs(plain - compiled).max()),
    }


def _noise(models: LoadedModels, seed: int) -> dict[str, np.ndarray]:
    pixels = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), np.uint8)
    return dict(models.prepare(Image.fromarray(pixels)))


def _scores(queries: Mapping[str, QKV], gallery: Mapping[str, QKV]) -> np.ndarray:
    return np.array([float(aligned_attention_scores(_wide(queries[m]), _wide(gallery[m]))[0]) for m in queries])


def _wide(qkv: QKV) -> QKV:
    return QKV(qkv.q.float(), qkv.k.float(), qkv.v.float())


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, measure, print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--image-size", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=1)
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    settings = ModelSettings(
        model="sd15", weights=str(asked.weights), dtype=asked.dtype, image_size=asked.image_size, encoders={}
    )
    models = load_models(settings, {mode: SD15_MODES[mode].target for mode in DEFAULT_MODES}, asked.device, True)
    print(json.dumps(measure(models, asked.device, asked.rounds), indent=1))


if __name__ == "__main__":
    main()
