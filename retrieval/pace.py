"""How a build runs on this machine: images a batch and decoding threads."""

import os

from retrieval.backbones import describe_extractor
from retrieval.device import choose_device
from retrieval.settings import BuildSettings

MAX_WORKERS = 8


def batch_size(model: str, run: BuildSettings) -> int:
    """Return how many images a batch has: as asked, else the model's own for the device."""
    on_cpu, on_accelerator = describe_extractor(model).batch_sizes
    own = on_cpu if choose_device(run.device).type == "cpu" else on_accelerator
    return min(run.batch_size or own, run.segment_rows)


def workers(run: BuildSettings) -> int:
    """Return how many threads decode images."""
    return run.workers or min(MAX_WORKERS, os.cpu_count() or 1)
