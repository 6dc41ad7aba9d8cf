"""The style of Gatys et al.: the Gram matrix of VGG-19's conv5_1, compared by cosine.

``parity="published"`` compares only the matrix's last row, as the published code does: the correlations of one channel
with all others. The network is written out here, so that torchvision is not needed.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from retrieval.errors import ModelError
from retrieval.images.preprocessing import DINOV2_PREPROCESSING
from retrieval.metrics.base import MetricSettings
from retrieval.metrics.features import FlatMetric
from retrieval.metrics.registry import VGG19_URL, MetricDescription
from retrieval.models.normalisation import normalise
from retrieval.models.weights.reading import model_errors, read_tensors
from retrieval.types import Parity, Role

FILE = VGG19_URL.rpartition("/")[2]
CHANNELS = (64, 64, 0, 128, 128, 0, 256, 256, 256, 256, 0, 512, 512, 512, 512, 0, 512)  # up to conv5_1; 0: halve
SHORTEST = 512  # pixels of the short side, as published


def load(description: MetricDescription, settings: MetricSettings, device: torch.device, offline: bool) -> "GramMetric":
    """Load VGG-19 from a local folder that holds torchvision's file.

    Raises:
        ModelError: the file is missing or damaged.
    """
    folder = Path(settings.weights or Path(torch.hub.get_dir()) / "checkpoints")
    path = folder / FILE
    if not path.is_file():
        raise ModelError(
            f"{description.name} needs the file {path}, about {description.download_mb} MB",
            advice="name-vgg-folder",
            url=VGG19_URL,
        )
    network = vgg19()
    failure = f"{path} can't be loaded as VGG-19"
    weights = read_tensors(path, failure)
    with model_errors(failure):
        network.load_state_dict({k.removeprefix("features."): v for k, v in weights.items() if wanted(k)})
    size = settings.image_size or SHORTEST
    return GramMetric(network.eval().requires_grad_(False).to(device), path, size, settings.parity, device)


def wanted(name: str) -> bool:
    """Return whether a tensor of the whole network lies at or before conv5_1."""
    parts = name.split(".")
    return parts[0] == "features" and int(parts[1]) <= len(vgg19()) - 1


def vgg19() -> nn.Sequential:
    """Return VGG-19's features up to conv5_1, numbered like torchvision's; no ReLU follows the last."""
    layers: list[nn.Module] = []
    before = 3
    for width in CHANNELS:
        if width:
            layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()]
            before = width
        else:
            layers.append(nn.MaxPool2d(2, 2))
    return nn.Sequential(*layers[:-1])


class GramMetric(FlatMetric):
    """The Gram matrix as one vector. Images keep their aspect ratio, so they are encoded one by one."""

    one_role = True
    batch_size = 1

    def __init__(self, network: nn.Module, path: Path, shortest: int, parity: Parity, device: torch.device) -> None:
        """Take a loaded network."""
        super().__init__()
        self._network, self._path, self._shortest = network, path, shortest
        self._parity, self._device = parity, device

    @torch.inference_mode()
    def vectors(self, images: Sequence[Image.Image], role: Role) -> Tensor:
        """Return ``[images, 512 * 512]``, or ``[images, 512]`` as published."""
        grams = [gram(self._network(self._pixels(image))[0]) for image in images]
        return torch.stack([matrix[-1] if self._parity == "published" else matrix.flatten() for matrix in grams])

    def _pixels(self, image: Image.Image) -> Tensor:
        scale = self._shortest / min(image.size)
        width, height = (max(16, int(side * scale)) for side in image.size)
        array = np.array(image.resize((width, height), Image.Resampling.BILINEAR))
        return normalise(array[np.newaxis], DINOV2_PREPROCESSING, self._device)  # VGG has the same mean and deviation

    def fingerprint(self) -> dict[str, Any]:
        """See :class:`retrieval.metrics.base.Metric`."""
        return {"name": "gram", "weights": self._path.name, "size": self._shortest, "parity": self._parity}


def gram(features: Tensor) -> Tensor:
    """Return ``F Fᵀ`` of ``[channels, height, width]``: ``[channels, channels]``."""
    flat = features.flatten(1)
    return flat @ flat.T
