"""The tensors of an index, as its codec keeps them: what makes Q/K/V of them, and the projections beside them."""

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
from retrieval.models.mini.projection import CellProjection
from retrieval.models.modes import CellValues
from retrieval.models.projection import LinearProjection
from retrieval.scoring.aas import QKV

DecodeQKV = Callable[[Mapping[str, Tensor]], QKV]
"""Stored arrays, widened to float32 on the device that scores, to Q/K/V."""


def qkv_decoder(reader: IndexReader, codec: Codec, mode: str, device: torch.device) -> DecodeQKV:
    """Return what makes Q/K/V of a mode's stored arrays; layer inputs are projected on ``device``, in float32.

    Raises:
        IndexCorruptError: the mode's projection is missing or damaged.
    """
    if not codec.hidden:
        return lambda arrays: stored_qkv(codec.decode(arrays))
    arrays = reader.projection(mode)
    try:
        projection = load_projection(arrays).to(device)
    except (KeyError, TypeError) as error:
        raise corrupt(reader.layout.projection(reader.generation.projections[mode]), f"is none ({error})") from error
    return lambda arrays: projection(codec.decode(arrays)["h"])


def with_projections(layout: Layout, generation: Generation, models: LoadedModels) -> Generation:
    """Write the projections that ``generation`` lacks, and return it with them; the caller commits it."""
    lacking = {mode: p for mode, p in models.projections().items() if mode not in generation.projections}
    written = {mode: write_projection(layout, projection.arrays()) for mode, projection in lacking.items()}
    return replace(generation, projections={**generation.projections, **written})


def lacks_projections(generation: Generation, codec: Codec) -> bool:
    """Say whether a repair took out a projection, so that candidates of a mode can't be scored."""
    return codec.hidden and any(mode not in generation.projections for mode in generation.modes)


def coverage(reader: IndexReader) -> dict[str, int]:
    """Return by mode how many items have their tensors in the index."""
    return {mode: int(reader.has_tensors(mode).sum()) for mode in reader.generation.modes}


def stored_qkv(arrays: Mapping[str, Tensor]) -> QKV:
    """Take arrays that are q, k and v themselves."""
    return QKV(arrays["q"], arrays["k"], arrays["v"])


def load_projection(arrays: Mapping[str, NDArray[Any]]) -> LinearProjection | CellProjection:
    """Return the projection that ``arrays`` were taken from, on the CPU.

    Raises:
        KeyError, TypeError: they are of no kind that this version knows.
    """
    if "q" not in arrays:
        return CellProjection(CellValues(**{name: float(value) for name, value in arrays.items()}))
    q, k, v = (torch.from_numpy(arrays[name]) for name in "qkv")
    if "q_bias" not in arrays:
        return LinearProjection((q, k, v))
    b, c, d = (torch.from_numpy(arrays[name]) for name in ("q_bias", "k_bias", "v_bias"))
    return LinearProjection((q, k, v), (b, c, d))
