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
from retrieval.models.mini.projection import mini_projection
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
        return decoding(codec, None)
    arrays = reader.projection(mode)
    try:
        projection = load_projection(arrays).to(device)
        width = arrays["q"].shape[-1] if "q" in arrays else 0
        if width and any(shape != width for shape in _widths(reader, mode)):
            raise ValueError(f"it takes {width} numbers a token, the tensors have another number")
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        path = reader.layout.projection(reader.generation.projections[mode])
        raise corrupt(path, f"holds no projection ({error})") from error
    return decoding(codec, projection)


def decoding(codec: Codec, projection: Projection | None) -> DecodeQKV:
    """Return the function that decodes arrays of ``codec``; None: it stores Q/K/V, and nothing is projected."""
    if projection is None:
        return lambda arrays: stored_qkv(codec.decode(arrays))
    return lambda arrays: projection(codec.decode(arrays)["h"])


def _widths(reader: IndexReader, mode: str) -> list[int]:
    """Return the width of a token of the layer inputs of ``mode``, by segment."""
    records = (segment.attention.get(mode) for segment in reader.generation.segments)
    return [record.row_shapes["h"][-1] for record in records if record is not None]


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


def load_projection(arrays: Mapping[str, NDArray[Any]]) -> Projection:
    """Return the projection whose ``arrays()`` these are, on the CPU.

    Raises:
        KeyError, TypeError, ValueError: this version knows no projection with these arrays.
    """
    of_mini = mini_projection(arrays)
    if of_mini is not None:
        return of_mini
    if "q" not in arrays:
        return CellProjection(CellValues(**{name: float(value) for name, value in arrays.items()}))
    _check_projection(arrays)
    return LinearProjection.from_arrays(arrays)


def _check_projection(arrays: Mapping[str, NDArray[Any]]) -> None:
    """Raise ValueError unless the weights are float32 ``[heads, head_dim, width]`` and the other arrays fit them."""
    q, k, v = (arrays[name] for name in "qkv")
    if any(array.dtype != "float32" or array.ndim != 3 or not array.size for array in (q, k, v)):
        raise ValueError("its weights are not float32 of three axes")
    if q.shape != k.shape or v.shape[2] != q.shape[2] or v.shape[0] not in (1, q.shape[0]):
        raise ValueError(f"its weights have the shapes {q.shape}, {k.shape} and {v.shape}")
    for name in ("q", "k", "v") if "q_bias" in arrays else ():
        if arrays[f"{name}_bias"].shape != arrays[name].shape[:2]:
            raise ValueError(f"{name}_bias has the shape {arrays[f'{name}_bias'].shape}")
    if "cos" in arrays and not arrays["cos"].shape == arrays["sin"].shape == (*arrays["cos"].shape[:-1], q.shape[1]):
        raise ValueError(f"its rotation has the shapes {arrays['cos'].shape} and {arrays['sin'].shape}")
