"""How a build runs on this machine: images a batch and decoding threads."""

import os
from typing import TYPE_CHECKING

from retrieval.backbones import describe_extractor
from retrieval.device import available_memory, choose_device
from retrieval.settings import BuildSettings, ModelSettings

if TYPE_CHECKING:
    import torch

MAX_WORKERS = 8
USABLE = 0.8  # of the free memory: what a batch takes is known about, and an allocator leaves gaps


def batch_size(settings: ModelSettings, run: BuildSettings) -> int:
    """Return how many images a batch has: as asked, else the model's own for the device, else what fits.

    On an accelerator the model's own is halved until the batch fits into the free memory, so ask once the models are
    loaded, and only once: another program may take memory meanwhile.
    """
    on_cpu, on_accelerator = describe_extractor(settings.model).batch_sizes
    device = choose_device(run.device)
    own = run.batch_size
    if own is None and device.type == "cpu":
        own = on_cpu
    elif own is None:
        own = fitting(on_accelerator, working_bytes(settings, device), available_memory(device))
    return min(own, run.segment_rows)


def fitting(most: int, an_image: int, free: int | None) -> int:
    """Return ``most``, or half of it and so on, so that so many images of ``an_image`` bytes fit; at least 1.

    What is not known (0 or None) is no limit.
    """
    while free is not None and most > 1 and most * an_image > USABLE * free:
        most //= 2
    return most


def working_bytes(settings: ModelSettings, device: "torch.device") -> int:
    """Return what computing one image takes beside the weights, about; 0 where it was never measured."""
    description = describe_extractor(settings.model)
    side = (settings.image_size or description.image_size) / max(1, description.image_size)
    halved = device.type != "cpu" and settings.dtype != "float32" and not description.float32_vae
    return int(description.working_mb * 1e6 * side**2 * (0.5 if halved else 1))


def workers(run: BuildSettings) -> int:
    """Return how many threads decode images."""
    return run.workers or min(MAX_WORKERS, os.cpu_count() or 1)
