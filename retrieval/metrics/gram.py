"""The style of Gatys et al.: the Gram matrix of VGG-19's conv5_1, compared by cosine.

``parity="published"`` compares the matrix's last row alone, as the published code does: the likeness of how one
channel goes with the others. The network is written out here, so that torchvision is not needed.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from retrieval.errors import ModelError
from retrieval.images.preprocessing import DINOV2_PREPROCESSING
from retrieval.metrics.base import MetricSettings
from retrieval.metrics.features import FlatMetric
from retrieval.metrics.registry import MetricDescription
from retrieval.types import Parity, Role

FILE = "vgg19-dcbb9e9d.pth"
URL = f"https://download.pytorch.org/models/{FILE}"
CHANNELS = (64, 64, 0, 128, 128, 0, 256, 256, 256, 256, 0, 512, 512, 512, 512, 0, 512)  # up to conv5_1; 0: halve
SHORTEST = 512  # pixels of the short side, as published


def load(description: MetricDescription, settings: MetricSettings, device: torch.device, offline: bool) -> "GramMetric":
    """Load VGG-19 from a local folder that holds torchvision's file.

    Raises:
        ModelError: no such file there; the message says where to get it.
    """
    folder = Path(settings.weights or Path(torch.hub.get_dir()) / "checkpoints")
    path = folder / FILE
    if not path.is_file():
        raise ModelError(
            f"{description.name}: {path} is needed, about {description.download_mb} MB: download {URL}, "
            "and name its folder with --weights"
        )
    try:
        weights: Mapping[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
        network = vgg19()
        network.load_state_dict({k.removeprefix("features."): v for k, v in weights.items() if wanted(k)})
    except (OSError, RuntimeError, ValueError, EOFError, UnpicklingError) as error:
        raise ModelError(f"{path} can't be loaded as VGG-19: {str(error).strip().splitlines()[0]}") from error
    size = settings.image_size or SHORTEST
    return GramMetric(network.eval().requires_grad_(False).to(device), path, size, settings.parity, device)


def wanted(name: str) -> bool:
    """Tell whether a tensor of the whole network lies at or before conv5_1."""
    parts = name.split(".")
    return parts[0] == "features" and int(parts[1]) <= len(vgg19()) - 1


def vgg19() -> nn.Sequential:
    """Return VGG-19's features up to conv5_1, layers numbered as torchvision's; the last has no ReLU behind it."""
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
    """The Gram matrix as a vector; images keep their aspect ratio, so they are encoded one by one."""

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
        array = np.array(image.resize((width, height), Image.Resampling.BILINEAR), np.float32) / 255.0
        rules = DINOV2_PREPROCESSING  # ImageNet's statistics
        normalised = (array - np.array(rules.mean, np.float32)) / np.array(rules.std, np.float32)
        return torch.from_numpy(normalised.transpose(2, 0, 1)).unsqueeze(0).to(self._device)

    def fingerprint(self) -> dict[str, Any]:
        """See :class:`retrieval.metrics.base.Metric`."""
        return {"name": "gram", "weights": self._path.name, "size": self._shortest, "parity": self._parity}


def gram(features: Tensor) -> Tensor:
    """Return ``F Fᵀ`` of ``[channels, height, width]``: ``[channels, channels]``."""
    flat = features.flatten(1)
    return flat @ flat.T
