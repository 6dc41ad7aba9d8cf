"""A model of a few numbers, so that a real build takes milliseconds."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from index_store.codecs import DEFAULT_CODEC, find_codec
from retrieval.encoding.loaded_models import LoadedModels
from retrieval.images.decoding import DecodeRules
from retrieval.images.preprocessing import resize_square
from retrieval.models.modes import Target
from retrieval.models.projection import LinearProjection
from retrieval.models.protocols import Pixels
from retrieval.scoring.aas import QKV
from retrieval.settings import ModelSettings
from retrieval.types import Role

ROW_SHAPE = (1, 2, 12, 8)


class TinyExtractor:
    """An AttentionExtractor: Q, K and V are the pixels themselves, in three ways."""

    def prepare(self, image: Image.Image) -> Pixels:
        return resize_square(image, 8)

    def extract(self, pixels: Pixels, targets: Sequence[Target], role: Role) -> dict[Target, QKV]:
        q = torch.tensor(pixels).float().reshape(-1, *ROW_SHAPE) / 255
        return {target: QKV(q, q.flip(-1) + target.timestep / 100, 1 - q) for target in targets}

    def hidden(self, pixels: Pixels, targets: Sequence[Target], role: Role) -> dict[Target, torch.Tensor]:
        """Return another layer than that of Q, K and V: twelve tokens of sixteen pixels."""
        hidden = torch.tensor(pixels).float().reshape(-1, *self.hidden_shape(targets[0])) / 255
        return dict.fromkeys(targets, hidden)

    def projection(self, target: Target) -> LinearProjection:
        weights = torch.randn(3, 2, 8, 16, generator=torch.Generator().manual_seed(target.timestep))
        return LinearProjection((weights[0], weights[1], weights[2]))

    def hidden_shape(self, target: Target) -> tuple[int, int, int]:
        return 1, 12, 16

    def fingerprint(self) -> dict[str, Any]:
        return {"name": "tiny"}


class TinyEmbedder:
    """An Embedder: the image in 4 x 4 pixels; under another name, a darker image."""

    def __init__(self, name: str = "descriptor") -> None:
        self.name = name

    def prepare(self, image: Image.Image) -> Pixels:
        return resize_square(image, 4)

    def embed(self, pixels: Pixels) -> NDArray[np.float32]:
        rows = pixels.reshape(len(pixels), -1).astype(np.float32) ** (1 + (self.name != "descriptor")) + 1
        vectors: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return vectors

    def fingerprint(self) -> dict[str, Any]:
        return {"name": f"tiny {self.name}"}


def load_tiny(settings: ModelSettings, targets: Mapping[str, Target], device: str, offline: bool) -> LoadedModels:
    """Stand in for :func:`retrieval.encoding.loaded_models.load_models`."""
    codec = find_codec(settings.codec or DEFAULT_CODEC)
    embedders = {name: TinyEmbedder(name) for name in settings.encoders or {}}
    return LoadedModels(TinyExtractor(), embedders, DecodeRules(), targets, codec)


@contextmanager
def tiny_model() -> Iterator[None]:
    """Build and search with the tiny model in place of the one asked for."""
    from retrieval.indexing.build import build_index
    from retrieval.indexing.dry_run import plan_build
    from retrieval.indexing.fill import fill_index

    with ExitStack() as patches:
        for function in (build_index, plan_build, fill_index):
            patches.enter_context(mock.patch.dict(function.__kwdefaults__, {"load": load_tiny}))
        patches.enter_context(mock.patch("retrieval.search.engine.load_models", load_tiny))
        yield
