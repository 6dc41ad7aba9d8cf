"""The loaded models of one index: pixels in, vectors and tensors out; and the fingerprint of what they compute."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from index_store.codecs import CODECS, DEFAULT_CODEC, Codec, find_codec
from retrieval.aas import QKV, AnyReadout
from retrieval.backbones import (
    EXTRACTORS,
    AttentionExtractor,
    Embedder,
    Pixels,
    describe_embedder,
    describe_extractor,
    load_embedder,
    load_extractor,
    readout_of,
)
from retrieval.backbones.weights import is_cached, is_offline
from retrieval.device import choose_device, choose_dtype, dtype_name
from retrieval.errors import UsageError
from retrieval.images import DecodeRules
from retrieval.modes import Mode, Need, Target
from retrieval.projection import HiddenExtractor, Projection
from retrieval.settings import ModelSettings
from retrieval.vocabulary import Role

ATTENTION = "attention"  # the extractor's entry among the prepared pixels; encoders are there by name

Prepared = Mapping[str, Pixels]
"""One image as every model wants it: the extractor's pixels and each encoder's."""


@dataclass(frozen=True)
class Encoded:
    """A batch, encoded: vectors float32 ``[images, dim]`` by encoder and tensors by mode, on the model's device."""

    vectors: Mapping[str, NDArray[np.float32]]
    tensors: Mapping[str, QKV]


@dataclass(frozen=True)
class Stored:
    """A batch as an index keeps it: vectors float32 ``[images, dim]`` by encoder, and the codec's arrays by mode."""

    vectors: Mapping[str, NDArray[np.float32]]
    tensors: Mapping[str, Mapping[str, NDArray[Any]]]


@dataclass(frozen=True)
class Models:
    """Everything that turns an image into what an index stores of it."""

    extractor: AttentionExtractor
    embedders: Mapping[str, Embedder]
    rules: DecodeRules
    targets: Mapping[str, Target]  # by mode
    codec: Codec = CODECS[DEFAULT_CODEC]

    def everything(self) -> Need:
        """Return all that these models compute of an image."""
        return Need(tuple(self.targets), tuple(self.embedders))

    def prepare(self, image: Image.Image, need: Need | None = None) -> Prepared:
        """Resize one RGB image for every model that ``need`` (all by default) names; safe in many threads."""
        need = self.everything() if need is None else need
        prepared = {name: self.embedders[name].prepare(image) for name in need.encoders}
        return {**prepared, ATTENTION: self.extractor.prepare(image)} if need.modes else prepared

    def encode(self, batch: Sequence[Prepared], role: Role, need: Need | None = None) -> Encoded:
        """Encode a batch for what ``need`` (all by default) names; modes with one target share one computation."""
        need = self.everything() if need is None else need
        wanted = {mode: self.targets[mode] for mode in need.modes}
        by_target: Mapping[Target, QKV] = {}
        if wanted:
            pixels = np.stack([image[ATTENTION] for image in batch])
            by_target = self.extractor.extract(pixels, list(dict.fromkeys(wanted.values())), role)
        return Encoded(self.embed(batch, need.encoders), {mode: by_target[target] for mode, target in wanted.items()})

    def encode_in_batches(self, images: Sequence[Prepared], role: Role, need: Need, size: int) -> Encoded:
        """Encode images ``size`` at a time; see :meth:`encode`."""
        found = [self.encode(images[start : start + size], role, need) for start in range(0, len(images), size)]
        return Encoded(
            {name: np.concatenate([each.vectors[name] for each in found]) for name in need.encoders},
            {mode: QKV.cat([each.tensors[mode] for each in found]) for mode in need.modes},
        )

    def encode_stored(self, batch: Sequence[Prepared], need: Need | None = None) -> Stored:
        """Encode a batch in the gallery's role as the index keeps it; see :meth:`encode`.

        Raises:
            DiffSimError: a number is infinite or none, or does not fit the codec.
        """
        need = self.everything() if need is None else need
        if not self.codec.hidden:
            encoded = self.encode(batch, "gallery", need)
            floats = {mode: to_floats(qkv) for mode, qkv in encoded.tensors.items()}
            return Stored(encoded.vectors, {mode: self.codec.encode(arrays) for mode, arrays in floats.items()})
        wanted = {mode: self.targets[mode] for mode in need.modes}
        arrays: dict[Target, Mapping[str, NDArray[Any]]] = {}
        if wanted:
            pixels = np.stack([image[ATTENTION] for image in batch])
            hidden = self._hidden_extractor().hidden(pixels, list(dict.fromkeys(wanted.values())), "gallery")
            arrays = {target: self.codec.encode({"h": h.float().cpu().numpy()}) for target, h in hidden.items()}
        return Stored(self.embed(batch, need.encoders), {mode: arrays[target] for mode, target in wanted.items()})

    def embed(self, batch: Sequence[Prepared], encoders: Sequence[str] | None = None) -> dict[str, NDArray[np.float32]]:
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


@dataclass(frozen=True)
class ChosenModel:
    """The answer to ``--model auto``, with the reason in one line."""

    name: str
    why: str


_CHOICE = "choose with --model sd15 or --model mini"


def choose_model(settings: ModelSettings, device: str, offline: bool) -> ChosenModel:
    """Choose the model: the one named; else sd15 where a GPU and its weights can be had; else the embedded mini."""
    if settings.model != "auto":
        describe_extractor(settings.model)
        return ChosenModel(settings.model, "as asked")
    if settings.weights is not None:
        return ChosenModel("sd15", "weights were given")
    if choose_device(device).type == "cpu":
        return ChosenModel("mini", f"no GPU in use, and sd15 takes half a minute an image on a CPU; {_CHOICE}")
    if is_cached(EXTRACTORS["sd15"], "unet/config.json"):
        return ChosenModel("sd15", f"a GPU and cached weights are at hand; {_CHOICE}")
    if offline or is_offline() or not _hub_answers():
        return ChosenModel("mini", f"sd15's weights are neither cached nor can be downloaded; {_CHOICE}")
    size = EXTRACTORS["sd15"].download_mb / 1000
    return ChosenModel("sd15", f"a GPU is at hand; its weights, {size:.1f} GB, are downloaded once; {_CHOICE}")


def _hub_answers() -> bool:
    from huggingface_hub import HfApi

    try:
        HfApi().model_info(EXTRACTORS["sd15"].repo, revision=EXTRACTORS["sd15"].revision, timeout=5)
    except Exception:  # whatever goes wrong on the way to the hub, the answer is no
        return False
    return True


def resolve(settings: ModelSettings, modes: Sequence[Mode], device: str) -> ModelSettings:
    """Replace every "the model's own" by its value, so that an index keeps its meaning when defaults change.

    Raises:
        UsageError: an encoder that has no folder beside local weights; the message says how to name one.
    """
    description = describe_extractor(settings.model)
    dtype = dtype_name(choose_dtype(settings.dtype, choose_device(device)))
    return replace(
        settings,
        weights=None if settings.weights is None else str(Path(settings.weights).resolve()),
        image_size=settings.image_size or description.image_size or None,
        noise=settings.noise or description.noise,
        dtype=dtype,
        encoders=_resolve_encoders(settings, modes),
    )


def _resolve_encoders(settings: ModelSettings, modes: Sequence[Mode]) -> dict[str, str | None]:
    names = settings.encoders
    if names is None:
        names = dict.fromkeys(encoder for mode in modes for encoder in mode.encoders)
    return {name: _encoder_folder(name, folder, settings) for name, folder in names.items()}


def _encoder_folder(name: str, folder: str | None, settings: ModelSettings) -> str | None:
    encoder = describe_embedder(name)
    if folder is not None:
        return str(Path(folder).resolve())
    if settings.weights is None or not encoder.download_mb:
        return None  # from the hub, or without weights
    if encoder.repo == describe_extractor(settings.model).repo:
        return str(Path(settings.weights).resolve())  # one network is both
    beside = Path(settings.weights).resolve().parent / name
    if not beside.is_dir():
        raise UsageError(
            f"local weights were given, but there is no folder {beside} for the encoder '{name}'; "
            f"name one with --encoders {name}=FOLDER, or build without a coarse stage with --encoders none"
        )
    return str(beside)


def load_models(settings: ModelSettings, targets: Mapping[str, Target], device: str, offline: bool) -> Models:
    """Load what :func:`resolve` returned.

    Raises:
        UsageError, ModelError: see :mod:`retrieval.backbones`.
    """
    place = choose_device(device)
    description = describe_extractor(settings.model)
    size = settings.image_size or description.image_size
    return Models(
        extractor=load_extractor(settings, place, offline),
        embedders={
            name: load_embedder(name, None if folder is None else Path(folder), place, offline)
            for name, folder in (settings.encoders or {}).items()
        },
        # Models next to a full decode in cost read JPEGs at a reduced scale, still twice what any model wants.
        rules=DecodeRules(alpha=settings.alpha, draft=max(size, 224) if description.draft else None),
        targets=targets,
        codec=find_codec(settings.codec),
    )


def tensors_digest(fingerprint: Mapping[str, Any], mode: str) -> str:
    """Return a digest, 16 hex digits, of all in a fingerprint that a mode's tensors depend on."""
    parts = {name: fingerprint[name] for name in ("model", "pixels", "codec")} | {"mode": fingerprint["modes"][mode]}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def to_floats(tensors: QKV) -> dict[str, NDArray[np.float16]]:
    """Return q, k, v as codecs take them; what float16 does not hold is infinite, which no codec lets pass."""
    return {
        name: tensor.to(torch.float16).cpu().numpy()
        for name, tensor in (("q", tensors.q), ("k", tensors.k), ("v", tensors.v))
    }


def differences(stored: Mapping[str, Any], asked: Mapping[str, Any], prefix: str = "") -> list[str]:
    """List where two fingerprints differ, as ``model.seed: 2334 in the index, 1 asked``."""
    found = []
    for key in sorted({*stored, *asked}):
        mine, yours = stored.get(key), asked.get(key)
        if isinstance(mine, Mapping) and isinstance(yours, Mapping):
            found += differences(mine, yours, f"{prefix}{key}.")
        elif mine != yours:
            found.append(f"{prefix}{key}: {_short(mine)} in the index, {_short(yours)} asked for")
    return found


def _short(value: Any) -> str:
    if value is None:
        return "nothing"
    text = str(value)
    return text if len(text) <= 40 else f"{text[:12]}..."
