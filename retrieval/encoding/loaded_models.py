"""The loaded models of one index: pixels in, vectors and tensors out; and the fingerprint of what they compute."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from retrieval.errors import UsageError
from retrieval.images.decoding import DecodeRules
from retrieval.models.modes import Outputs, Target
from retrieval.models.protocols import (
    AttentionExtractor,
    Embedder,
    HiddenExtractor,
    Pixels,
    Projection,
    TensorEmbedder,
    readout_of,
)
from retrieval.models.registry import describe_extractor, load_embedder, load_extractor
from retrieval.scoring.aas import QKV, AnyReadout
from retrieval.settings import ModelSettings
from retrieval.types import Role

ATTENTION = "attention"  # the extractor's entry among the prepared pixels; encoders are there by name

ModelInputs = Mapping[str, Pixels]
"""One image as every model wants it: the extractor's pixels and each encoder's."""


@dataclass(frozen=True)
class EncodedImages:
    """A batch, encoded: vectors float32 ``[images, dim]`` by encoder and tensors by mode, on the model's device."""

    vectors: Mapping[str, NDArray[np.float32]]
    tensors: Mapping[str, QKV]


@dataclass(frozen=True)
class StoredBatch:
    """A batch as an index keeps it: vectors float32 ``[images, dim]`` by encoder, and the codec's arrays by mode."""

    vectors: Mapping[str, NDArray[np.float32]]
    tensors: Mapping[str, Mapping[str, NDArray[Any]]]


@dataclass(frozen=True)
class InFlightBatch:
    """A batch that the device is computing; what an index keeps of it comes into this machine's memory meanwhile."""

    vectors: Mapping[str, Fetched]
    arrays: Mapping[str, Mapping[str, Fetched]]  # by mode: the codec's input
    codec: Codec
    clock: DeviceClock

    def wait(self) -> float:
        """Wait until all of it is here; return the seconds that the device took for it."""
        for fetched in (*self.vectors.values(), *(each for mode in self.arrays.values() for each in mode.values())):
            fetched()
        return self.clock.seconds()

    def stored(self) -> StoredBatch:
        """Wait, and return the batch as the index keeps it.

        Raises:
            DiffSimError: a number is infinite or none, or does not fit the codec.
        """
        encoded: dict[int, Mapping[str, NDArray[Any]]] = {}
        for fetched in self.arrays.values():
            if id(fetched) not in encoded:  # modes of one target share it
                encoded[id(fetched)] = self.codec.encode({name: wait() for name, wait in fetched.items()})
        tensors = {mode: encoded[id(fetched)] for mode, fetched in self.arrays.items()}
        return StoredBatch({name: wait() for name, wait in self.vectors.items()}, tensors)


@dataclass(frozen=True)
class LoadedModels:
    """Everything that turns an image into what an index stores of it."""

    extractor: AttentionExtractor
    embedders: Mapping[str, Embedder]
    rules: DecodeRules
    targets: Mapping[str, Target]  # by mode
    codec: Codec = CODECS[DEFAULT_CODEC]
    device: torch.device = torch.device("cpu")  # noqa: RUF009 (it is immutable)

    def everything(self) -> Outputs:
        """Return all that these models compute of an image."""
        return Outputs(tuple(self.targets), tuple(self.embedders))

    def prepare(self, image: Image.Image, need: Outputs | None = None) -> ModelInputs:
        """Resize one RGB image for every model that ``need`` (all by default) names; safe in many threads."""
        need = self.everything() if need is None else need
        prepared = {name: self.embedders[name].prepare(image) for name in need.encoders}
        return {**prepared, ATTENTION: self.extractor.prepare(image)} if need.modes else prepared

    def encode(self, batch: Sequence[ModelInputs], role: Role, need: Outputs | None = None) -> EncodedImages:
        """Encode a batch for what ``need`` (all by default) names; modes with one target share one computation."""
        need = self.everything() if need is None else need
        with raising_memory_full(len(batch), self.device):
            tensors = self._extract(batch, need.modes, role)
            return EncodedImages(self.embed(batch, need.encoders), tensors)

    def encode_in_batches(self, images: Sequence[ModelInputs], role: Role, need: Outputs, size: int) -> EncodedImages:
        """Encode images ``size`` at a time; see :meth:`encode`."""
        found = [self.encode(images[start : start + size], role, need) for start in range(0, len(images), size)]
        return EncodedImages(
            {name: np.concatenate([each.vectors[name] for each in found]) for name in need.encoders},
            {mode: QKV.cat([each.tensors[mode] for each in found]) for mode in need.modes},
        )

    def encode_stored(self, batch: Sequence[ModelInputs], need: Outputs | None = None) -> StoredBatch:
        """Encode a batch in the gallery's role as the index keeps it; see :meth:`begin`."""
        return self.begin(batch, need).stored()

    @torch.inference_mode()
    def begin(self, batch: Sequence[ModelInputs], need: Outputs | None = None) -> InFlightBatch:
        """Begin to encode a batch in the gallery's role, as the index keeps it.

        On a GPU this returns once all is launched, so that the next batch can be while results come down; on a CPU
        everything is computed then.

        Raises:
            MemoryFullError: the device's memory does not hold the batch.
        """
        need = self.everything() if need is None else need
        clock = DeviceClock(self.device)
        with raising_memory_full(len(batch), self.device):
            arrays = self._begin_arrays(batch, need.modes) if batch else {}
            vectors = {name: self._begin_vectors(batch, name) for name in need.encoders} if batch else {}
        clock.stop()
        return InFlightBatch(vectors, arrays, self.codec, clock)

    def _begin_arrays(self, batch: Sequence[ModelInputs], modes: Sequence[str]) -> dict[str, Mapping[str, Fetched]]:
        """Return by mode what the codec takes; modes of one target share one mapping."""
        targets = self._targets(modes)
        by_target: dict[Target, Mapping[str, Fetched]] = {}
        if targets and self.codec.hidden:
            hidden = self._hidden_extractor().hidden(self._pixels(batch), targets, "gallery")
            by_target = {target: {"h": fetch(_as_numpy_can(h[: len(batch)]))} for target, h in hidden.items()}
        elif targets:
            found = self.extractor.extract(self._pixels(batch), targets, "gallery")
            by_target = {target: _fetch_halves(qkv, len(batch)) for target, qkv in found.items()}
        return {mode: by_target[self.targets[mode]] for mode in modes}

    def _begin_vectors(self, batch: Sequence[ModelInputs], name: str) -> Fetched:
        embedder, pixels = self.embedders[name], np.stack([image[name] for image in batch])
        if isinstance(embedder, TensorEmbedder):
            return fetch(embedder.vectors(pixels))
        vectors = embedder.embed(pixels)
        return lambda: vectors

    def _extract(self, batch: Sequence[ModelInputs], modes: Sequence[str], role: Role) -> dict[str, QKV]:
        targets = self._targets(modes)
        if not targets:
            return {}
        found = self.extractor.extract(self._pixels(batch), targets, role)
        return {mode: _first(found[self.targets[mode]], len(batch)) for mode in modes}

    def _targets(self, modes: Sequence[str]) -> list[Target]:
        return list(dict.fromkeys(self.targets[mode] for mode in modes))

    def _pixels(self, batch: Sequence[ModelInputs]) -> Pixels:
        return np.stack([image[ATTENTION] for image in batch])

    def embed(
        self, batch: Sequence[ModelInputs], encoders: Sequence[str] | None = None
    ) -> dict[str, NDArray[np.float32]]:
        """Return the vectors ``[images, dim]`` of ``encoders``, of each by default."""
        return {
            name: self.embedders[name].embed(np.stack([image[name] for image in batch]))
            for name in (self.embedders if encoders is None else encoders)
        }

    def _hidden_extractor(self) -> HiddenExtractor:
        if isinstance(self.extractor, HiddenExtractor):
            return self.extractor
        kept = ", ".join(codec.name for codec in CODECS.values() if not codec.hidden)
        raise UsageError(f"this model gives no layer inputs, which codec {self.codec.name} keeps; choose {kept}")

    def projections(self) -> dict[str, Projection]:
        """Return, by mode, what makes Q/K/V of the stored arrays; none where the codec stores Q/K/V.

        Raises:
            UsageError: the codec keeps layer inputs and this model gives none.
        """
        if not self.codec.hidden:
            return {}
        extractor = self._hidden_extractor()
        return {mode: extractor.projection(target) for mode, target in self.targets.items()}

    def readout(self, mode: str) -> AnyReadout:
        """Return how the mode's outputs are read before they are compared."""
        return readout_of(self.extractor, self.targets[mode])

    def fingerprint(self) -> dict[str, Any]:
        """Return all that changes a stored number, as JSON values."""
        return {
            "model": self.extractor.fingerprint(),
            "pixels": self.rules.fingerprint(),
            "modes": {mode: target.to_json() for mode, target in self.targets.items()},
            "encoders": {name: embedder.fingerprint() for name, embedder in self.embedders.items()},
            "codec": self.codec.name,
        }


def load_models(settings: ModelSettings, targets: Mapping[str, Target], device: str, offline: bool) -> LoadedModels:
    """Load what :func:`retrieval.models.defaults.resolve` returned.

    Raises:
        UsageError, ModelError: see :mod:`retrieval.backbones`.
    """
    place = choose_device(device)
    description = describe_extractor(settings.model)
    size = settings.image_size or description.image_size
    return LoadedModels(
        extractor=load_extractor(settings, place, offline),
        embedders={
            name: load_embedder(name, None if folder is None else Path(folder), place, offline)
            for name, folder in (settings.encoders or {}).items()
        },
        # Models next to a full decode in cost read JPEGs at a reduced scale, still twice what any model wants.
        rules=DecodeRules(alpha=settings.alpha, draft=max(size, 224) if description.draft else None),
        targets=targets,
        codec=find_codec(settings.codec),
        device=place,
    )


def _first(tensors: QKV, count: int) -> QKV:
    return QKV(*(tensor[:count] for tensor in (tensors.q, tensors.k, tensors.v)))


def _as_numpy_can(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float16 else tensor.float()  # numpy knows no bfloat16


def _fetch_halves(tensors: QKV, count: int) -> dict[str, Fetched]:
    """Begin to fetch the first rows of q, k, v; see :func:`to_floats`."""
    named = zip("qkv", (tensors.q, tensors.k, tensors.v), strict=True)
    return {name: fetch(tensor[:count].to(torch.float16)) for name, tensor in named}


def to_floats(tensors: QKV) -> dict[str, NDArray[np.float16]]:
    """Return q, k, v as codecs take them; what float16 does not hold is infinite, which no codec lets pass."""
    return {name: fetched() for name, fetched in _fetch_halves(tensors, len(tensors.q)).items()}
