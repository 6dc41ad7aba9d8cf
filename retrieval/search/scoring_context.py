"""What exact scoring needs beside the index: loaded models, their decoders, and limits for computing tensors."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from PIL import Image

from index_store.catalog import Item
from index_store.reader import IndexReader
from index_store.tensors.cache import CacheKey, TensorCache
from retrieval.devices.selection import choose_device
from retrieval.devices.threads import ALONE, CoreThreads, core_count
from retrieval.encoding.batches import batch_size, workers
from retrieval.encoding.encoded_batches import EncodedImages, StoredBatch
from retrieval.encoding.fingerprint import check_fingerprint, tensors_digest
from retrieval.encoding.loaded_models import LoadedModels, LoadModels, ModelInputs
from retrieval.encoding.recipe import Recipe
from retrieval.encoding.stored_tensors import DecodeQKV, qkv_decoder
from retrieval.errors import ModelError
from retrieval.models.modes import Outputs
from retrieval.models.registry import describe_extractor
from retrieval.scoring.aas import QKV
from retrieval.settings import BuildSettings, EngineSettings, ModelSettings
from retrieval.types import Role

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class ScoringContext:
    """Models, decoders and limits for computing missing tensors during a search; safe in many threads."""

    reader: IndexReader
    models: LoadedModels
    device: torch.device  # where candidates are scored
    tensor_cache: TensorCache  # where computed tensors are kept
    batch_size: int  # images that are encoded at a time
    workers: int  # threads that decode images
    small_modes: frozenset[str] = frozenset()  # whose regions ask drawn small, too
    threads: CoreThreads = ALONE  # share a query's pictures, and the steps of a scoring
    _one_pass: threading.Lock = field(default_factory=threading.Lock)
    _decoders: dict[str, DecodeQKV] = field(default_factory=dict)
    _digests: dict[str, str] = field(default_factory=dict)

    def prepare(self, images: Sequence[Image.Image], outputs: Outputs) -> list[ModelInputs]:
        """Resize RGB images for every model of ``outputs``."""
        return self.threads.map(partial(self.models.prepare, outputs=outputs), images)

    def encode(self, images: Sequence[ModelInputs], role: Role, outputs: Outputs) -> EncodedImages:
        """Encode images: small models one image on each core, others a batch at a time.

        Raises:
            ModelError: the model gives numbers that are infinite or not a number.
        """
        if self.models.run_side_by_side():
            one = partial(self.models.encode, role=role, outputs=outputs)
            found = EncodedImages.cat(self.threads.map(one, [[image] for image in images]))
        else:
            found = self._by_turns(lambda: self.models.encode_in_batches(images, role, outputs, self.batch_size))
        vectors = all(bool(np.isfinite(array).all()) for array in found.vectors.values())
        tensors = (tensor for qkv in found.tensors.values() for tensor in (qkv.q, qkv.k, qkv.v))
        if not vectors or not all(bool(torch.isfinite(tensor).all()) for tensor in tensors):
            raise ModelError(
                "the model gives numbers for the query that are infinite or not a number; no score is made"
            )
        return found

    def encode_stored(self, batch: Sequence[ModelInputs], outputs: Outputs) -> StoredBatch:
        """Encode a batch in the gallery's role, as the index stores it."""
        if self.models.run_side_by_side():
            return self.models.encode_stored(batch, outputs)
        return self._by_turns(lambda: self.models.encode_stored(batch, outputs))

    def _by_turns(self, work: Callable[[], _Result]) -> _Result:
        """Let one thread's work use the models: their hooks read the layers of one network."""
        with self._one_pass:
            return work()

    def tensors(self, images: Sequence[ModelInputs], role: Role, mode: str) -> QKV:
        """Return a mode's tensors of images, on the scoring device."""
        return self.encode(images, role, Outputs((mode,))).tensors[mode].to(self.device)

    def decoder(self, mode: str) -> DecodeQKV:
        """Return the function that turns a mode's stored arrays into Q/K/V."""
        if mode not in self._decoders:  # two threads may make two: they are alike
            self._decoders[mode] = qkv_decoder(self.reader, self.models.codec, mode, self.device)
        return self._decoders[mode]

    def cache_key(self, mode: str, item: Item) -> CacheKey:
        """Return an image's place in the index's cache on disk; modes that share stored tensors share it."""
        name = self.reader.generation.stored_as(mode)
        if name not in self._digests:
            self._digests[name] = tensors_digest(self.models.fingerprint(), name)
        return CacheKey(name, self._digests[name], item.sha256)


def load_context(
    reader: IndexReader, recipe: Recipe, settings: EngineSettings, tensor_cache: TensorCache, load: LoadModels
) -> ScoringContext:
    """Load an index's models.

    Raises:
        UsageError, ModelError: see ``load``.
        IndexIncompatibleError: the models found here differ from those of the build.
    """
    device = choose_device(settings.device)
    here = _settings_here(recipe.settings, settings, device)
    models = load(here, recipe.targets, settings.device, settings.offline).limited(settings.max_pixels)
    # A query's dtype may differ from the gallery's within the stated tolerance: a CPU has no fast float16.
    stored, root = reader.generation.fingerprint, reader.layout.root
    check_fingerprint(stored, models.fingerprint(), root, ignore=("model.dtype",))
    run = BuildSettings(device=settings.device)
    small = {name for name, known in describe_extractor(recipe.settings.model).modes.items() if known.small_regions}
    size = batch_size(recipe.settings, run)
    threads = CoreThreads(core_count()) if device.type == "cpu" else ALONE
    return ScoringContext(reader, models, device, tensor_cache, size, workers(run), frozenset(small), threads)


def _settings_here(stored: ModelSettings, here: EngineSettings, device: torch.device) -> ModelSettings:
    """Return the index's model settings with the folders and the dtype of this machine."""
    folders = {name: here.encoders.get(name, folder) for name, folder in (stored.encoders or {}).items()}
    return replace(
        stored,
        weights=here.weights or stored.weights,
        dtype="float32" if device.type == "cpu" and stored.dtype == "float16" else stored.dtype,
        encoders=folders,
    )
