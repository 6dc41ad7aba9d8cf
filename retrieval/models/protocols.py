"""The protocols that models implement: attention extractors, embedders and projections."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from retrieval.models.modes import Target
from retrieval.scoring.aas import QKV
from retrieval.scoring.outputs import AnyReadout
from retrieval.types import Role

Pixels: TypeAlias = NDArray[np.uint8]
"""``[images, height, width, 3]``, or one image without the first axis."""


class AttentionExtractor(Protocol):
    """Images to the Q/K/V of chosen layers at chosen timesteps."""

    def prepare(self, image: Image.Image) -> Pixels:
        """Return the pixels ``[S, S, 3]`` that :meth:`extract` takes; runs in decoding threads."""

    def extract(self, pixels: Pixels, targets: Sequence[Target], role: Role) -> dict[Target, QKV]:
        """Return each target's tensors ``[images, branches, heads, tokens, head_dim]`` on the model's device."""

    def fingerprint(self) -> dict[str, Any]:
        """Return every setting that changes a tensor, as JSON values; equal fingerprints may share an index."""


@runtime_checkable
class ProjectedOutput(Protocol):
    """An AttentionExtractor whose outputs pass through a layer's projection before they are compared."""

    def project_output(self, output: Tensor, layer: str) -> Tensor:
        """Project float32 ``[items, branches, heads, tokens, head_dim]`` of ``layer`` to ``[items, ...]``."""


@runtime_checkable
class SideBySide(Protocol):
    """A model that says whether a CPU should compute several batches at the same time, each on one core.

    That suits a small network: its batches fit into memory together, and its operations are too short to share.
    """

    side_by_side: bool


@runtime_checkable
class SeveralSquares(Protocol):
    """An extractor whose prepared pixels hold several pictures of the same image, for different layers."""

    def square(self, image: Image.Image, target: Target) -> Pixels:
        """Return the part of an image's prepared pixels that the tokens of ``target`` lie on."""


@runtime_checkable
class Prompted(Protocol):
    """An AttentionExtractor that a text prompt conditions."""

    def with_prompts(self, prompts: Sequence[str]) -> Mapping[str, AttentionExtractor]:
        """Return an extractor for each of ``prompts``; all of them share one network."""


def readout_of(extractor: AttentionExtractor, target: Target) -> AnyReadout:
    """Return the function or rule that is applied to outputs of ``target`` before they are compared."""
    if isinstance(extractor, ProjectedOutput):
        return partial(extractor.project_output, layer=target.layer)
    return target.readout


class Embedder(Protocol):
    """Images to L2-normalised vectors."""

    def prepare(self, image: Image.Image) -> Pixels:
        """Return the pixels ``[S, S, 3]`` that :meth:`embed` takes; runs in decoding threads."""

    def embed(self, pixels: Pixels) -> NDArray[np.float32]:
        """Return ``[images, dim]``, every row of norm 1."""

    def fingerprint(self) -> dict[str, Any]:
        """Return every setting that changes a vector, as JSON values."""


class Projection(Protocol):
    """From ``[items, branches, tokens, width]`` to Q, K and V."""

    def __call__(self, hidden: Tensor) -> QKV:
        """Project inputs on the projection's device, in its dtype."""

    def to(self, device: torch.device | str) -> "Projection":
        """Return the projection on ``device``, in float32."""

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays that an index stores, and from which it loads the projection again."""


@runtime_checkable
class HiddenExtractor(AttentionExtractor, Protocol):
    """An extractor whose Q/K/V are projections of a layer's input h.

    An index may store h in their place, which takes a third of the space.
    """

    def hidden(self, pixels: Pixels, targets: Sequence[Target], role: Role) -> dict[Target, Tensor]:
        """Return each target's h ``[images, branches, tokens, width]`` on the model's device."""

    def projection(self, target: Target) -> Projection:
        """Return the projection from h to the target's Q/K/V."""

    def hidden_shape(self, target: Target) -> tuple[int, int, int]:
        """Return one image's (branches, tokens, width); nothing is computed."""


@runtime_checkable
class TensorEmbedder(Embedder, Protocol):
    """An Embedder whose vectors may stay on the device, so that a GPU can start the next batch before the copy."""

    def vectors(self, pixels: Pixels) -> Tensor:
        """Return the vectors of :meth:`embed` as a tensor on the model's device."""


@runtime_checkable
class PoolingEmbedder(TensorEmbedder, Protocol):
    """An Embedder that pools the tensors of an extractor, so that one pass of a network gives both."""

    target: Target
    """The target whose layer it pools."""

    def reads(self, extractor: AttentionExtractor) -> bool:
        """Say whether it pools the tensors of this very extractor; then both take the same pixels."""

    def pool(self, hidden: Tensor) -> Tensor:
        """Return the vectors of :meth:`embed` from the extractor's h of :attr:`target`, on its device."""
