"""The loaded models of one index: they turn images into vectors and attention tensors."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from index_store.codecs import CODECS, DEFAULT_CODEC, Codec, find_codec
from retrieval.devices.memory import raising_memory_full
from retrieval.devices.selection import choose_device
from retrieval.devices.transfer import DeviceClock, Fetched, fetch
from retrieval.encoding.encoded_batches import EncodedImages, InFlightBatch, StoredBatch
from retrieval.errors import UsageError
from retrieval.images.decoding import DecodeRules
from retrieval.models.modes import Outputs, Target
from retrieval.models.protocols import (
    AttentionExtractor,
    Embedder,
    HiddenExtractor,
    Pixels,
    PoolingEmbedder,
    SideBySide,
    TensorEmbedder,
    readout_of,
)
from retrieval.models.registry import describe_extractor, load_embedder, load_extractor
from retrieval.scoring.aas import QKV
from retrieval.scoring.outputs import AnyReadout
from retrieval.settings import ModelSettings
from retrieval.types import Role

ATTENTION = "attention"  # key of the extractor's pixels in ModelInputs; the other keys are names of encoders

ModelInputs = Mapping[str, Pixels]
"""One image, resized for every model: the extractor's pixels and those of each encoder."""


@dataclass(frozen=True)
class LoadedModels:
    """The attention extractor and the encoders of one index, with the rules for decoding images."""

    extractor: AttentionExtractor
    embedders: Mapping[str, Embedder]
    rules: DecodeRules
    targets: Mapping[str, Target]  # by mode
    codec: Codec = CODECS[DEFAULT_CODEC]
    device: torch.device = torch.device("cpu")  # noqa: RUF009 (it is immutable)

    def limited(self, max_pixels: int) -> "LoadedModels":
        """Return the same models for images of at most ``max_pixels`` px; see :class:`DecodeRules`."""
        return replace(self, rules=replace(self.rules, max_pixels=max_pixels))

    def everything(self) -> Outputs:
        """Return all modes and encoders of these models."""
        return Outputs(tuple(self.targets), tuple(self.embedders))

    def prepare(self, image: Image.Image, outputs: Outputs | None = None) -> ModelInputs:
        """Resize one RGB image for every model of ``outputs`` (all by default); safe to call from many threads."""
        outputs = self.everything() if outputs is None else outputs
        pooling = self._pooling(outputs.encoders)
        apart = [name for name in outputs.encoders if name not in pooling]
        prepared = {name: self.embedders[name].prepare(image) for name in apart}
        return {**prepared, ATTENTION: self.extractor.prepare(image)} if outputs.modes or pooling else prepared

    @torch.inference_mode()
    def encode(self, batch: Sequence[ModelInputs], role: Role, outputs: Outputs | None = None) -> EncodedImages:
        """Encode a batch for ``outputs`` (all by default). Modes with the same target are computed once.

        Raises:
            MemoryFullError: the device's memory does not hold the batch.
        """
        outputs = self.everything() if outputs is None else outputs
        with raising_memory_full(len(batch), self.device):
            hidden = self._one_pass(batch, outputs, role)
            tensors = self._extract(batch, outputs.modes, role, hidden)
            vectors = {name: self._begin_vectors(batch, name, hidden)() for name in outputs.encoders}
            return EncodedImages(vectors, tensors)

    def encode_in_batches(
        self, images: Sequence[ModelInputs], role: Role, outputs: Outputs, size: int
    ) -> EncodedImages:
        """Encode images ``size`` at a time; see :meth:`encode`."""
        return EncodedImages.cat(
            [self.encode(images[start : start + size], role, outputs) for start in range(0, len(images), size)]
        )

    def encode_stored(self, batch: Sequence[ModelInputs], outputs: Outputs | None = None) -> StoredBatch:
        """Encode a batch of gallery images and return it as the index stores it; see :meth:`begin`."""
        return self.begin(batch, outputs).stored()

    @torch.inference_mode()
    def begin(self, batch: Sequence[ModelInputs], outputs: Outputs | None = None) -> InFlightBatch:
        """Begin to encode a batch of gallery images for ``outputs`` (all by default).

        A GPU gets its kernels launched and this returns at once, so that the next batch can follow while results are
        copied. A CPU has computed everything when this returns.

        Raises:
            MemoryFullError: the device's memory does not hold the batch.
        """
        outputs = self.everything() if outputs is None else outputs
        clock = DeviceClock(self.device)
        with raising_memory_full(len(batch), self.device):
            hidden = self._one_pass(batch, outputs, "gallery") if batch else {}
            arrays = self._begin_arrays(batch, outputs.modes, hidden) if batch else {}
            vectors = {name: self._begin_vectors(batch, name, hidden) for name in outputs.encoders} if batch else {}
        clock.stop()
        return InFlightBatch(vectors, arrays, self.codec, clock)

    def run_side_by_side(self) -> bool:
        """Say whether several threads of a CPU should compute a batch each; see :class:`SideBySide`."""
        each = (self.extractor, *self.embedders.values())
        return self.device.type == "cpu" and all(isinstance(one, SideBySide) and one.side_by_side for one in each)

    def pools(self, outputs: Outputs) -> bool:
        """Say whether one pass gives tensors of ``outputs`` and vectors that are pooled from them."""
        return bool(outputs.modes and self._pooling(outputs.encoders))

    def _pooling(self, encoders: Sequence[str]) -> dict[str, PoolingEmbedder]:
        """Return by name those of ``encoders`` that pool the extractor's own tensors."""
        return {name: self._all_pooling[name] for name in encoders if name in self._all_pooling}

    @cached_property
    def _all_pooling(self) -> dict[str, PoolingEmbedder]:
        return {
            name: embedder
            for name, embedder in self.embedders.items()
            if isinstance(embedder, PoolingEmbedder) and embedder.reads(self.extractor)
        }

    @torch.inference_mode()
    def _one_pass(self, batch: Sequence[ModelInputs], outputs: Outputs, role: Role) -> dict[Target, Tensor]:
        """Return h for all ``outputs`` if an encoder pools it; nothing otherwise, so that models run on their own."""
        pooled = [embedder.target for embedder in self._pooling(outputs.encoders).values()]
        targets = list(dict.fromkeys([*self._targets(outputs.modes), *pooled]))
        return self.hidden_extractor().hidden(_pixels(batch), targets, role) if pooled else {}

    def _begin_arrays(
        self, batch: Sequence[ModelInputs], modes: Sequence[str], hidden: Mapping[Target, Tensor]
    ) -> dict[str, Mapping[str, Fetched]]:
        """Return the codec's input by mode; modes with the same target share one mapping."""
        targets = self._targets(modes)
        by_target: dict[Target, Mapping[str, Fetched]] = {}
        if targets and self.codec.hidden:
            hidden = hidden or self.hidden_extractor().hidden(_pixels(batch), targets, "gallery")
            by_target = {target: {"h": fetch(_as_numpy_can(hidden[target]))} for target in targets}
        elif targets:
            found = self._extract(batch, modes, "gallery", hidden)
            by_target = {self.targets[mode]: _fetch_halves(qkv) for mode, qkv in found.items()}
        return {mode: by_target[self.targets[mode]] for mode in modes}

    def _begin_vectors(self, batch: Sequence[ModelInputs], name: str, hidden: Mapping[Target, Tensor]) -> Fetched:
        pooling, embedder = self._all_pooling.get(name), self.embedders[name]
        if pooling is not None and pooling.target in hidden:
            return fetch(pooling.pool(hidden[pooling.target]))
        pixels = _pixels(batch, name)
        if isinstance(embedder, TensorEmbedder):
            return fetch(embedder.vectors(pixels))
        vectors = embedder.embed(pixels)
        return lambda: vectors

    @torch.inference_mode()
    def _extract(
        self, batch: Sequence[ModelInputs], modes: Sequence[str], role: Role, hidden: Mapping[Target, Tensor]
    ) -> dict[str, QKV]:
        """Return Q/K/V by mode: from ``hidden`` where it is given, else from the extractor."""
        targets = self._targets(modes)
        if hidden:
            found = {target: self.hidden_extractor().projection(target)(hidden[target]) for target in targets}
        else:
            found = self.extractor.extract(_pixels(batch), targets, role) if targets else {}
        return {mode: found[self.targets[mode]] for mode in modes}

    def _targets(self, modes: Sequence[str]) -> list[Target]:
        return list(dict.fromkeys(self.targets[mode] for mode in modes))

    def hidden_extractor(self) -> HiddenExtractor:
        """Return the extractor as one that gives layer inputs.

        Raises:
            UsageError: the codec stores layer inputs and this extractor gives none.
        """
        if isinstance(self.extractor, HiddenExtractor):
            return self.extractor
        usable = ", ".join(codec.name for codec in CODECS.values() if not codec.hidden)
        raise UsageError(f"codec {self.codec.name} stores layer inputs and this model gives none; choose {usable}")

    def readout(self, mode: str) -> AnyReadout:
        """Return how the mode's attention outputs are read out before they are compared."""
        return readout_of(self.extractor, self.targets[mode])

    def fingerprint(self) -> dict[str, Any]:
        """Return everything that changes a stored number, as JSON values; see :mod:`retrieval.encoding.fingerprint`."""
        return {
            "model": self.extractor.fingerprint(),
            "pixels": self.rules.fingerprint(),
            "modes": {mode: target.to_json() for mode, target in self.targets.items()},
            "encoders": {name: embedder.fingerprint() for name, embedder in self.embedders.items()},
            "codec": self.codec.name,
        }


LoadModels = Callable[[ModelSettings, Mapping[str, Target], str, bool], LoadedModels]
"""A function like :func:`load_models`. A caller passes its own to share loaded models, or to test without weights."""


def load_models(settings: ModelSettings, targets: Mapping[str, Target], device: str, offline: bool) -> LoadedModels:
    """Load the models of resolved settings (:func:`retrieval.models.defaults.resolve`) onto ``device``.

    Raises:
        UsageError, ModelError: see :mod:`retrieval.models.registry`.
    """
    chosen = choose_device(device)
    return LoadedModels(
        extractor=load_extractor(settings, chosen, offline),
        embedders=_load_embedders(settings, chosen, offline),
        rules=decode_rules(settings),
        targets=targets,
        codec=find_codec(settings.codec or DEFAULT_CODEC),
        device=chosen,
    )


class LoadOnce:
    """Loads the models of one index once, for all generations with the same settings."""

    def __init__(self, load: LoadModels) -> None:
        self._load = load
        self._loaded: tuple[Any, LoadedModels] | None = None
        self._loading = threading.Lock()

    def __call__(
        self, settings: ModelSettings, targets: Mapping[str, Target], device: str, offline: bool
    ) -> LoadedModels:
        """Return the models as ``load`` does."""
        key = (settings, dict(targets), device, offline)
        with self._loading:
            if self._loaded is None or self._loaded[0] != key:
                self._loaded = (key, self._load(settings, targets, device, offline))
            return self._loaded[1]


def _load_embedders(settings: ModelSettings, device: torch.device, offline: bool) -> dict[str, Embedder]:
    folders = {name: None if folder is None else Path(folder) for name, folder in (settings.encoders or {}).items()}
    return {name: load_embedder(name, folder, device, offline) for name, folder in folders.items()}


def decode_rules(settings: ModelSettings) -> DecodeRules:
    """Return how images are decoded: JPEGs for a fast model at a reduced scale, since a full decode costs as much.

    The reduced image has the model's multiple of the side that any of the models takes.
    """
    description = describe_extractor(settings.model)
    size = settings.image_size or description.image_size
    # The rule of decoding is half the short side.
    draft = round(max(size, 224) * description.draft / 2) if description.draft else None
    return DecodeRules(alpha=settings.alpha, draft=draft, colour=settings.colour)


def _pixels(batch: Sequence[ModelInputs], model: str = ATTENTION) -> Pixels:
    """Stack the images of a batch for one model: ``[images, height, width, 3]``."""
    return np.stack([image[model] for image in batch])


def _as_numpy_can(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float16 else tensor.float()  # numpy has no bfloat16


def _fetch_halves(tensors: QKV) -> dict[str, Fetched]:
    """Begin to copy q, k and v to main memory as float16; see :func:`to_floats`."""
    named = zip("qkv", (tensors.q, tensors.k, tensors.v), strict=True)
    return {name: fetch(tensor.to(torch.float16)) for name, tensor in named}


def to_floats(tensors: QKV) -> dict[str, NDArray[np.float16]]:
    """Return q, k and v as float16 arrays for a codec. Values outside float16 become infinite; codecs refuse them."""
    return {name: fetched() for name, fetched in _fetch_halves(tensors).items()}
