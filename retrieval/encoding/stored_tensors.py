"""Turn the tensors that an index stores into Q/K/V, and write the projections that this needs."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from index_store.codecs import Codec
from index_store.files import corrupt
from index_store.generation import Generation
from index_store.layout import Layout
from index_store.reader import IndexReader
from index_store.tensors.projections import write_projection
from retrieval.encoding.loaded_models import LoadedModels
from retrieval.models.cells.projection import CellProjection
from retrieval.models.modes import CellValues
from retrieval.models.projection import LinearProjection
from retrieval.models.protocols import Projection
from retrieval.scoring.aas import QKV

DecodeQKV = Callable[[Mapping[str, Tensor]], QKV]
"""Turns stored arrays, widened to float32 on the scoring device, into Q/K/V."""


def qkv_decoder(reader: IndexReader, codec: Codec, mode: str, device: torch.device) -> DecodeQKV:
    """Return the function that decodes the stored arrays of ``mode``. Layer inputs are projected on ``device``.

    Raises:
        IndexCorruptError: the mode's projection is missing or damaged.
    """
    if not codec.hidden:
        return lambda arrays: stored_qkv(codec.decode(arrays))
    arrays = reader.projection(mode)
    try:
        projection = load_projection(arrays).to(device)
    except (KeyError, TypeError) as error:
        path = reader.layout.projection(reader.generation.projections[mode])
        raise corrupt(path, f"holds no projection ({error})") from error
    return lambda arrays: projection(codec.decode(arrays)["h"])


def projections_of(models: LoadedModels) -> dict[str, Projection]:
    """Return by mode the projection from stored layer inputs to Q/K/V; none where the codec stores Q/K/V.

    Raises:
        UsageError: the codec stores layer inputs and this model gives none.
    """
    if not models.codec.hidden:
        return {}
    extractor = models.hidden_extractor()
    return {mode: extractor.projection(target) for mode, target in models.targets.items()}


def with_projections(layout: Layout, generation: Generation, models: LoadedModels) -> Generation:
    """Write the projections that ``generation`` does not name yet, and return it naming them; the caller commits it."""
    absent = {mode: p for mode, p in projections_of(models).items() if mode not in generation.projections}
    written = {mode: write_projection(layout, projection.arrays()) for mode, projection in absent.items()}
    return replace(generation, projections={**generation.projections, **written})


def misses_projections(generation: Generation, codec: Codec) -> bool:
    """Whether a repair removed a projection, so that the candidates of its mode can't be scored."""
    return codec.hidden and any(mode not in generation.projections for mode in generation.modes)


def coverage(reader: IndexReader) -> dict[str, int]:
    """Return by mode the number of items whose tensors are stored."""
    return {mode: int(reader.has_tensors(mode).sum()) for mode in reader.generation.modes}


def stored_qkv(arrays: Mapping[str, Tensor]) -> QKV:
    """Return Q/K/V from arrays that are stored as q, k and v."""
    return QKV(arrays["q"], arrays["k"], arrays["v"])


def load_projection(arrays: Mapping[str, NDArray[Any]]) -> LinearProjection | CellProjection:
    """Return the projection whose ``arrays()`` these are, on the CPU.

    Raises:
        KeyError, TypeError: this version knows no projection with these arrays.
    """
    if "q" not in arrays:
        return CellProjection(CellValues(**{name: float(value) for name, value in arrays.items()}))
    return LinearProjection.from_arrays(arrays)
