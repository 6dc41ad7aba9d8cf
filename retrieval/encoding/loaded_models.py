"""The loaded models of one index: they turn images into vectors and attention tensors."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
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
from retrieval.errors import DiffSimError, UsageError
from retrieval.images.decoding import DecodeRules
from retrieval.models.modes import Outputs, Target
from retrieval.models.protocols import (
    AttentionExtractor,
    Embedder,
    HiddenExtractor,
    Pixels,
    TensorEmbedder,
    readout_of,
)
from retrieval.models.registry import describe_extractor, load_embedder, load_extractor
from retrieval.scoring.aas import QKV, AnyReadout
from retrieval.settings import ModelSettings
from retrieval.types import Role

ATTENTION = "attention"  # key of the extractor's pixels in ModelInputs; the other keys are names of encoders

ModelInputs = Mapping[str, Pixels]
"""One image, resized for every model: the extractor's pixels and those of each encoder."""


@dataclass(frozen=True)
class EncodedImages:
    """An encoded batch: float32 vectors ``[images, dim]`` by encoder, and Q/K/V by mode on the models' device."""

    vectors: Mapping[str, NDArray[np.float32]]
    tensors: Mapping[str, QKV]


@dataclass(frozen=True)
class StoredBatch:
    """A batch as the index stores it: float32 vectors ``[images, dim]`` by encoder, and the codec's arrays by mode."""

    vectors: Mapping[str, NDArray[np.float32]]
    tensors: Mapping[str, Mapping[str, NDArray[Any]]]
    unusable: tuple[int, ...] = ()  # positions in the batch of images with an infinite number or NaN: they are left out


@dataclass(frozen=True)
class InFlightBatch:
    """A batch that the device is computing, while earlier results are copied to main memory."""

    vectors: Mapping[str, Fetched]
    arrays: Mapping[str, Mapping[str, Fetched]]  # by mode: the codec's input
    codec: Codec
    clock: DeviceClock

    def wait(self) -> float:
        """Wait until every result is in main memory; return the seconds that the device computed."""
        for fetched in (*self.vectors.values(), *(each for mode in self.arrays.values() for each in mode.values())):
            fetched()
        return self.clock.seconds()

    def stored(self) -> StoredBatch:
        """Wait for the batch, and return it as the index stores it: without images whose numbers can't be stored."""
        # Modes with the same target share one mapping.
        shared = {id(fetched): fetched for fetched in self.arrays.values()}
        floats = {key: {name: wait() for name, wait in fetched.items()} for key, fetched in shared.items()}
        vectors = {name: wait() for name, wait in self.vectors.items()}
        wrong: tuple[int, ...] = ()
        encoded = _encoded(self.codec, floats, vectors)
        if encoded is None:
            count = max((len(array) for each in (vectors, *floats.values()) for array in each.values()), default=0)
            picked = [(_rows(floats, [n]), {name: array[[n]] for name, array in vectors.items()}) for n in range(count)]
            wrong = tuple(n for n, (some, own) in enumerate(picked) if _encoded(self.codec, some, own) is None)
            right = [n for n in range(count) if n not in wrong]
            vectors = {name: array[right] for name, array in vectors.items()}
            encoded = _encoded(self.codec, _rows(floats, right), vectors) if right else None
        if encoded is None:
            return StoredBatch({}, {}, wrong)
        return StoredBatch(vectors, {mode: encoded[id(fetched)] for mode, fetched in self.arrays.items()}, wrong)


_Floats = Mapping[int, Mapping[str, NDArray[Any]]]


def _encoded(
    codec: Codec, floats: _Floats, vectors: Mapping[str, NDArray[Any]]
) -> dict[int, Mapping[str, NDArray[Any]]] | None:
    """Return what the codec makes of each mapping of arrays; None if a number is infinite, NaN, or does not fit."""
    if not all(np.isfinite(array).all() for array in vectors.values()):
        return None
    try:
        return {key: codec.encode(each) for key, each in floats.items()}
    except DiffSimError:
        return None


def _rows(floats: _Floats, rows: Sequence[int]) -> dict[int, dict[str, NDArray[Any]]]:
    return {key: {name: array[list(rows)] for name, array in each.items()} for key, each in floats.items()}


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
        prepared = {name: self.embedders[name].prepare(image) for name in outputs.encoders}
        return {**prepared, ATTENTION: self.extractor.prepare(image)} if outputs.modes else prepared

    def encode(self, batch: Sequence[ModelInputs], role: Role, outputs: Outputs | None = None) -> EncodedImages:
        """Encode a batch for ``outputs`` (all by default). Modes with the same target are computed once.

        Raises:
            MemoryFullError: the device's memory does not hold the batch.
        """
        outputs = self.everything() if outputs is None else outputs
        with raising_memory_full(len(batch), self.device):
            tensors = self._extract(batch, outputs.modes, role)
            return EncodedImages(self.embed(batch, outputs.encoders), tensors)

    def encode_in_batches(
        self, images: Sequence[ModelInputs], role: Role, outputs: Outputs, size: int
    ) -> EncodedImages:
        """Encode images ``size`` at a time; see :meth:`encode`."""
        found = [self.encode(images[start : start + size], role, outputs) for start in range(0, len(images), size)]
        return EncodedImages(
            {name: np.concatenate([each.vectors[name] for each in found]) for name in outputs.encoders},
            {mode: QKV.cat([each.tensors[mode] for each in found]) for mode in outputs.modes},
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
            arrays = self._begin_arrays(batch, outputs.modes) if batch else {}
            vectors = {name: self._begin_vectors(batch, name) for name in outputs.encoders} if batch else {}
        clock.stop()
        return InFlightBatch(vectors, arrays, self.codec, clock)

    def _begin_arrays(self, batch: Sequence[ModelInputs], modes: Sequence[str]) -> dict[str, Mapping[str, Fetched]]:
        """Return the codec's input by mode; modes with the same target share one mapping."""
        targets = self._targets(modes)
        by_target: dict[Target, Mapping[str, Fetched]] = {}
        if targets and self.codec.hidden:
            hidden = self.hidden_extractor().hidden(_pixels(batch), targets, "gallery")
            by_target = {target: {"h": fetch(_as_numpy_can(h))} for target, h in hidden.items()}
        elif targets:
            found = self.extractor.extract(_pixels(batch), targets, "gallery")
            by_target = {target: _fetch_halves(qkv) for target, qkv in found.items()}
        return {mode: by_target[self.targets[mode]] for mode in modes}

    def _begin_vectors(self, batch: Sequence[ModelInputs], name: str) -> Fetched:
        embedder, pixels = self.embedders[name], _pixels(batch, name)
        if isinstance(embedder, TensorEmbedder):
            return fetch(embedder.vectors(pixels))
        vectors = embedder.embed(pixels)
        return lambda: vectors

    def _extract(self, batch: Sequence[ModelInputs], modes: Sequence[str], role: Role) -> dict[str, QKV]:
        targets = self._targets(modes)
        found = self.extractor.extract(_pixels(batch), targets, role) if targets else {}
        return {mode: found[self.targets[mode]] for mode in modes}

    def _targets(self, modes: Sequence[str]) -> list[Target]:
        return list(dict.fromkeys(self.targets[mode] for mode in modes))

    def embed(
        self, batch: Sequence[ModelInputs], encoders: Sequence[str] | None = None
    ) -> dict[str, NDArray[np.float32]]:
        """Return float32 vectors ``[images, dim]`` by encoder, for ``encoders`` (all by default)."""
        names = self.embedders if encoders is None else encoders
        return {name: self.embedders[name].embed(_pixels(batch, name)) for name in names}

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
        rules=_decode_rules(settings),
        targets=targets,
        codec=find_codec(settings.codec or DEFAULT_CODEC),
        device=chosen,
    )


def _load_embedders(settings: ModelSettings, device: torch.device, offline: bool) -> dict[str, Embedder]:
    folders = {name: None if folder is None else Path(folder) for name, folder in (settings.encoders or {}).items()}
    return {name: load_embedder(name, folder, device, offline) for name, folder in folders.items()}


def _decode_rules(settings: ModelSettings) -> DecodeRules:
    """Return how images are decoded: JPEGs for a fast model at a reduced scale, since a full decode costs as much.

    The reduced image has at least twice the side that any of the models takes.
    """
    description = describe_extractor(settings.model)
    size = settings.image_size or description.image_size
    draft = max(size, 224) if description.draft else None
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
