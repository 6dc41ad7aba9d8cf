"""The protocols that models implement: embedders, attention extractors, projections."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from retrieval.models.modes import Target
from retrieval.scoring.aas import QKV, AnyReadout
from retrieval.types import Role

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from PIL import Image

    from retrieval.scoring.aas import QKV, AnyReadout

Pixels: TypeAlias = "NDArray[np.uint8]"
"""``[images, height, width, 3]``, or one image without the first axis."""


class AttentionExtractor(Protocol):
    """Images to the Q/K/V of chosen layers at chosen timesteps."""

    def prepare(self, image: "Image.Image") -> Pixels:
        """Return the pixels ``[S, S, 3]`` that :meth:`extract` takes; runs in decoding threads."""

    def extract(self, pixels: Pixels, targets: Sequence[Target], role: Role) -> "dict[Target, QKV]":
        """Return each target's tensors ``[images, branches, heads, tokens, head_dim]`` on the model's device."""

    def fingerprint(self) -> dict[str, Any]:
        """Return all that changes a tensor, as JSON values; equal fingerprints may share an index."""


@runtime_checkable
class ProjectedOutput(Protocol):
    """An AttentionExtractor whose outputs pass through a layer's projection before they are compared."""

    def project_output(self, output: "torch.Tensor", layer: str) -> "torch.Tensor":
        """Project float32 ``[items, branches, heads, tokens, head_dim]`` of ``layer`` to ``[items, ...]``."""


@runtime_checkable
class Prompted(Protocol):
    """An AttentionExtractor that a text conditions, which can be had under several texts at once."""

    def with_prompts(self, prompts: Sequence[str]) -> Mapping[str, AttentionExtractor]:
        """Return the extractor under each of ``prompts``; the network is shared."""


def readout_of(extractor: AttentionExtractor, target: Target) -> "AnyReadout":
    """Return how outputs of ``target`` are read before they are compared: by its model, or by the target itself."""
    if isinstance(extractor, ProjectedOutput):
        return partial(extractor.project_output, layer=target.layer)
    return target.readout


class Embedder(Protocol):
    """Images to L2-normalised vectors."""

    def prepare(self, image: "Image.Image") -> Pixels:
        """Return the pixels ``[S, S, 3]`` that :meth:`embed` takes; runs in decoding threads."""

    def embed(self, pixels: Pixels) -> "NDArray[np.float32]":
        """Return ``[images, dim]``, every row of norm 1."""

    def fingerprint(self) -> dict[str, Any]:
        """Return all that changes a vector, as JSON values."""


class Projection(Protocol):
    """From ``[items, branches, tokens, width]`` to Q, K and V."""

    def __call__(self, hidden: Tensor) -> QKV:
        """Project inputs that lie on the projection's device, in its dtype."""

    def to(self, device: torch.device | str) -> "Projection":
        """Return it on ``device``, in float32."""

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return what :func:`load_projection` makes it from."""


@runtime_checkable
class HiddenExtractor(AttentionExtractor, Protocol):
    """An extractor whose Q/K/V are projections of a layer's input h, so that an index may keep h: a third of them."""

    def hidden(self, pixels: Pixels, targets: Sequence[Target], role: Role) -> dict[Target, Tensor]:
        """Return each target's h ``[images, branches, tokens, width]`` on the model's device."""

    def projection(self, target: Target) -> Projection:
        """Return what makes the target's Q/K/V of h."""

    def hidden_shape(self, target: Target) -> tuple[int, int, int]:
        """Return one image's (branches, tokens, width) without computing anything."""


@runtime_checkable
class TensorEmbedder(Embedder, Protocol):
    """An Embedder that a GPU can be given the next batch of before this one's vectors have been copied down."""

    def vectors(self, pixels: Pixels) -> Tensor:
        """Return what :meth:`embed` does as a tensor on the model's device."""
