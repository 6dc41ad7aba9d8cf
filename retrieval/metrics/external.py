"""LPIPS and DreamSim, through their authors' own packages, which this project does not depend on."""

from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from retrieval.errors import DependencyError, ModelError
from retrieval.images.preprocessing import resize_square
from retrieval.metrics.base import Features, Metric, MetricSettings
from retrieval.metrics.features import FlatMetric
from retrieval.metrics.registry import MetricDescription
from retrieval.types import Role


def load_lpips(
    description: MetricDescription, settings: MetricSettings, device: torch.device, offline: bool
) -> "LPIPSMetric":
    """Load LPIPS with its VGG network, as in the paper.

    Raises:
        DependencyError: the package lpips is not installed, or can't be imported.
        ModelError: the weights can't be loaded.
    """
    package = need_package("lpips", description.name, advice="install-package")
    try:
        network = package.LPIPS(net="vgg", verbose=False)
    except (OSError, RuntimeError, ValueError) as error:
        raise ModelError(f"LPIPS's weights can't be loaded: {str(error).splitlines()[0]}") from error
    return LPIPSMetric(network.eval().to(device), settings.image_size or description.image_size, device)


def load_dreamsim(
    description: MetricDescription, settings: MetricSettings, device: torch.device, offline: bool
) -> "DreamSimMetric":
    """Load DreamSim's ensemble; ``weights`` is the folder for the package's downloads.

    Raises:
        DependencyError: the package dreamsim is not installed, or can't be imported.
        ModelError: the weights can't be loaded.
    """
    package = need_package("dreamsim", description.name, advice="install-package")
    folder = settings.weights or str(Path.home() / ".cache" / "dreamsim")
    try:
        model, preprocess = package.dreamsim(pretrained=True, device=str(device), cache_dir=folder)
    except (OSError, RuntimeError, ValueError) as error:
        raise ModelError(f"DreamSim's weights can't be loaded in {folder}: {str(error).splitlines()[0]}") from error
    return DreamSimMetric(model, preprocess, device)


def need_package(name: str, metric: str, *, advice: str) -> Any:
    """Import the optional package ``name``.

    Raises:
        DependencyError: the package is not installed, or can't be imported; ``advice`` is the remedy's word.
    """
    try:
        return import_module(name)
    except ImportError as error:
        missing = f" ({error.name} is missing)" if error.name and error.name != name else ""
        raise DependencyError(
            f"the metric {metric} needs the package {name}, which can't be imported{missing}",
            advice=advice,
            package=name,
        ) from error
    except RuntimeError as error:  # for example a torchvision that was built for another torch
        raise DependencyError(
            f"the metric {metric} needs the package {name}, which can't be imported: {str(error).splitlines()[0]}"
        ) from error


def package_version(name: str) -> str:
    """Return the installed version of a package, for fingerprints: another one may give other features."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "of unknown version"


class LPIPSMetric(Metric):
    """The learned perceptual distance of two images (Zhang et al., 2018): lower is closer.

    It compares layers pixel by pixel, so the features of an image are its pixels.
    """

    higher_is_closer = False
    one_role = True
    batch_size = 8

    def __init__(self, network: Any, image_size: int, device: torch.device) -> None:
        """Take a loaded network, called with two tensors ``[n, 3, S, S]`` in [-1, 1]."""
        self._network, self._size, self._device = network, image_size, device

    def encode(self, images: Sequence[Image.Image], role: Role) -> Features:
        """Return uint8 pixels, Lanczos to a square, as the published script does."""
        return {"pixels": torch.from_numpy(np.stack([resize_square(image, self._size) for image in images]))}

    @torch.inference_mode()
    def score(self, query: Features, gallery: Features) -> NDArray[np.float32]:
        """See :class:`retrieval.metrics.base.Metric`."""
        first = self._signed(query["pixels"])
        pixels = gallery["pixels"]
        found = []
        for at in range(0, len(pixels), self.batch_size):
            chunk = self._signed(pixels[at : at + self.batch_size])
            found.append(self._network(first.expand_as(chunk), chunk).flatten())
        return torch.cat(found).float().cpu().numpy() if found else np.empty(0, np.float32)

    def _signed(self, pixels: Tensor) -> Tensor:
        return pixels.to(self._device).permute(0, 3, 1, 2).float() / 127.5 - 1.0

    def fingerprint(self) -> dict[str, Any]:
        """See :class:`retrieval.metrics.base.Metric`."""
        return {"name": "lpips", "network": "vgg", "size": self._size, "package": package_version("lpips")}


class DreamSimMetric(FlatMetric):
    """Cosine of DreamSim's embeddings. DreamSim's distance is one minus this, so the order is the same."""

    one_role = True

    def __init__(self, model: Any, preprocess: Any, device: torch.device) -> None:
        """Take the model and the preprocessing that the package returns."""
        super().__init__()
        self._model, self._preprocess, self._device = model, preprocess, device

    @torch.inference_mode()
    def vectors(self, images: Sequence[Image.Image], role: Role) -> Tensor:
        """Return ``[images, dim]``."""
        batch = torch.cat([self._preprocess(image) for image in images]).to(self._device)
        embedded: Tensor = self._model.embed(batch)
        return embedded

    def fingerprint(self) -> dict[str, Any]:
        """See :class:`retrieval.metrics.base.Metric`."""
        return {"name": "dreamsim", "type": "ensemble", "package": package_version("dreamsim")}
