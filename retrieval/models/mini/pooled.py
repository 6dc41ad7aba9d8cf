"""Encoders that pool the tensors of mini: the mean value of a mode's tokens, read as the mode's outputs are.

With a sharpness of 0 every output of the attention is this mean. So the vector of a mode is the coarsest form of the
tensors that the mode's score compares, and it comes from the same pass of the network.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from retrieval.models.descriptions import Description
from retrieval.models.mini.attention import MiniExtractor, mini_on
from retrieval.models.modes import MINI_MODES, Target
from retrieval.models.protocols import AttentionExtractor, Pixels
from retrieval.models.registry import EXTRACTORS
from retrieval.scoring.outputs import read

PREFIX = "mini-"  # of the encoders' names; the mode follows


def load(description: Description, folder: Path | None, device: torch.device, offline: bool) -> "PooledMode":
    """Return the encoder of a mode; ``folder`` and ``offline`` are ignored: the weights are in a package.

    Raises:
        ModelError: the package is missing, or its file is another one.
    """
    mode = MINI_MODES[description.name.removeprefix(PREFIX)]
    return PooledMode(mini_on(device, EXTRACTORS["mini"].image_size), mode.target)


class PooledMode:
    """A PoolingEmbedder over the tensors of one target."""

    side_by_side = True

    def __init__(self, extractor: MiniExtractor, target: Target) -> None:
        """Take the loaded model."""
        self._extractor, self.target = extractor, target

    def reads(self, extractor: AttentionExtractor) -> bool:
        """See :class:`retrieval.models.protocols.PoolingEmbedder`."""
        return extractor is self._extractor

    def pool(self, hidden: Tensor) -> Tensor:
        """See :class:`retrieval.models.protocols.PoolingEmbedder`."""
        values = self._extractor.projection(self.target)(hidden).v[:, 0, 0]
        return normalize(read(values.mean(dim=1), self.target.readout), dim=1)

    def prepare(self, image: Image.Image) -> Pixels:
        """Return the pixels that mini takes."""
        return self._extractor.prepare(image)

    @torch.inference_mode()
    def vectors(self, pixels: Pixels) -> Tensor:
        """See :class:`retrieval.models.protocols.TensorEmbedder`."""
        return self.pool(self._extractor.hidden(pixels, [self.target], "gallery")[self.target])

    def embed(self, pixels: Pixels) -> NDArray[np.float32]:
        """Return float32 ``[images, dim]``, rows of norm 1."""
        vectors: NDArray[np.float32] = self.vectors(pixels).cpu().numpy()
        return vectors

    def fingerprint(self) -> dict[str, Any]:
        """See :class:`retrieval.models.protocols.Embedder`."""
        return {**self._extractor.fingerprint(), "name": "mini-pooled", "mode": self.target.to_json()}
