"""Foreground feature averaging (CUTE; Kotar et al., 2023): DINOv2's patch tokens, averaged over the subject.

The subject's mask comes from a folder, or from the optional package rembg (the authors' carvekit needs an old torch).
The background is blackened before the network sees it, which the paper calls "Crop-Feat".
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from retrieval.errors import UsageError
from retrieval.images.decoding import DecodeRules, read_image
from retrieval.images.preprocessing import DINOV2_PREPROCESSING
from retrieval.metrics.base import Features, MetricSettings
from retrieval.metrics.external import need_package, package_version
from retrieval.metrics.features import FlatMetric
from retrieval.metrics.registry import MetricDescription
from retrieval.models.normalisation import normalise
from retrieval.models.protocols import Pixels
from retrieval.models.weights.finding import Weights, find_weights
from retrieval.models.weights.loading import load_pretrained
from retrieval.types import Role

SIZE = 336  # pixels a side, as in the published code

Cut = Callable[[Image.Image], Image.Image]
"""From an RGB image to the mask of its subject, mode L, of the same size."""


def load(
    description: MetricDescription, settings: MetricSettings, device: torch.device, offline: bool
) -> "ForegroundAverage":
    """Load DINOv2 ViT-B/14, and rembg to find the subject unless a folder of masks is given.

    Raises:
        DependencyError: rembg is not installed, and no masks are given.
        ModelError: weights are missing or incomplete.
    """
    find: Cut | GivenMasks
    if settings.masks is None:
        find = _cut_by(need_package("rembg", description.name, advice="install-package-or-give-masks"))
    else:
        find = GivenMasks(Path(settings.masks))
    local = None if settings.weights is None else Path(settings.weights)
    weights = find_weights(description, local, offline)
    return ForegroundAverage(load_network(weights, device), weights, settings.image_size or SIZE, find)


def load_network(weights: Weights, device: torch.device) -> Any:
    """Load DINOv2."""
    from transformers import Dinov2Model

    return load_pretrained(Dinov2Model, weights[""], "DINOv2", dtype=torch.float32).to(device)


def _cut_by(package: Any) -> Cut:
    def cut(image: Image.Image) -> Image.Image:
        mask: Image.Image = package.remove(image, only_mask=True)
        return mask.convert("L")

    return cut


class GivenMasks:
    """A folder of masks, named like the images: ``FOLDER/NAME.png`` or ``FOLDER/PARENT/NAME.png``."""

    def __init__(self, folder: Path) -> None:
        """Take the folder; a missing one is a UsageError."""
        if not folder.is_dir():
            raise UsageError(f"{folder} is not a folder: masks are expected there, named like the images")
        self._folder = folder

    def of(self, path: Path, size: tuple[int, int]) -> Image.Image:
        """Return the mask of the image at ``path``, mode L, of ``size``; the longest matching path wins.

        Raises:
            UsageError: the image has no mask.
            ImageError: the mask can't be decoded.
        """
        mask = read_image(self._file(path), DecodeRules(alpha="drop"))[0].convert("L")
        return mask if mask.size == size else mask.resize(size, Image.Resampling.NEAREST)

    def digest(self, path: Path) -> str:
        """Return the SHA-256 of the mask of the image at ``path``; errors as in :meth:`of`."""
        return read_image(self._file(path), DecodeRules(alpha="drop"))[1].sha256

    def _file(self, path: Path) -> Path:
        parts = path.absolute().with_suffix(".png").parts[1:]
        tails = [self._folder.joinpath(*parts[start:]) for start in range(len(parts))]
        for file in tails:
            if file.is_file():
                return file
        raise UsageError(f"ffa: {path} has no mask: {tails[-1]} is missing")


class ForegroundAverage(FlatMetric):
    """The mean of the final patch tokens under the mask, compared by cosine."""

    one_role = True
    batch_size = 4

    def __init__(self, network: Any, weights: Weights, image_size: int, find: "Cut | GivenMasks") -> None:
        """Take a loaded DINOv2, its files, and the masks or a function that finds the subject."""
        super().__init__()
        self._network, self._files, self._find = network, weights, find
        patch = network.config.patch_size
        self._grid = image_size // patch
        self._size = self._grid * patch

    def vectors(self, images: Sequence[Image.Image], role: Role) -> Tensor:
        """Return ``[images, width]``; a folder of masks needs :meth:`encode_files` instead."""
        if isinstance(self._find, GivenMasks):
            raise UsageError("ffa with given masks needs the images' files, because masks are found by name")
        return self._averages(images, [self._find(image) for image in images])

    def encode_files(self, images: Sequence[Image.Image], paths: Sequence[Path], role: Role) -> Features:
        """See :class:`retrieval.metrics.base.Metric`."""
        if not isinstance(self._find, GivenMasks):
            return self.encode(images, role)
        masks = [self._find.of(path, image.size) for image, path in zip(images, paths, strict=True)]
        return {"vector": self._averages(images, masks).cpu()}

    @torch.inference_mode()
    def _averages(self, images: Sequence[Image.Image], masks: Sequence[Image.Image]) -> Tensor:
        subjects = np.stack([self._subject(image, mask) for image, mask in zip(images, masks, strict=True)])
        pixels = normalise(subjects, DINOV2_PREPROCESSING, self._network.device)
        tokens: Tensor = self._network(pixel_values=pixels).last_hidden_state[:, 1:]
        weights = torch.stack([self._weights(mask) for mask in masks]).to(tokens)
        averages: Tensor = (tokens * weights.unsqueeze(2)).sum(dim=1) / weights.sum(dim=1, keepdim=True)
        return averages

    def _subject(self, image: Image.Image, mask: Image.Image) -> Pixels:
        """Return the subject on black, ``[S, S, 3]``."""
        subject = Image.composite(image, Image.new("RGB", image.size), mask.point(lambda value: 255 * (value > 0)))
        return np.array(subject.resize((self._size, self._size), Image.Resampling.BICUBIC))

    def _weights(self, mask: Image.Image) -> Tensor:
        """Return 1 for patches that the subject covers by more than half, else 0; all 1 if there is no subject."""
        covered = mask.point(lambda value: 255 * (value > 0)).resize(
            (self._grid, self._grid), Image.Resampling.BILINEAR
        )
        chosen = torch.from_numpy(np.array(covered, np.float32) / 255.0 > 0.5).flatten()
        return (chosen if bool(chosen.any()) else torch.ones_like(chosen)).float()

    def file_key(self, path: Path) -> str:
        """See :class:`retrieval.metrics.base.Metric`: copies of one picture may have different masks."""
        return self._find.digest(path) if isinstance(self._find, GivenMasks) else ""

    def fingerprint(self) -> dict[str, Any]:
        """See :class:`retrieval.metrics.base.Metric`."""
        mask = "given" if isinstance(self._find, GivenMasks) else f"rembg {package_version('rembg')}"
        return {"name": "ffa", "weights": self._files.digest(), "size": self._size, "mask": mask}
