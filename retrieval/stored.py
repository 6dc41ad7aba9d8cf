"""The tensors of an index, as its codec keeps them: what makes Q/K/V of them, and the projections beside them."""

from dataclasses import replace

import torch

from index_store.codecs import Codec
from index_store.durable import corrupt
from index_store.layout import Layout
from index_store.manifest import Generation
from index_store.projections import write_projection
from index_store.reader import IndexReader
from retrieval.models import Models
from retrieval.projection import load_projection
from retrieval.rerank import Restore, as_stored


def restorer(reader: IndexReader, codec: Codec, mode: str, device: torch.device) -> Restore:
    """Return what makes Q/K/V of a mode's stored arrays; layer inputs are projected on ``device``, in float32.

    Raises:
        IndexCorruptError: the mode's projection is missing or damaged.
    """
    if not codec.hidden:
        return lambda arrays: as_stored(codec.decode(arrays))
    arrays = reader.projection(mode)
    try:
        projection = load_projection(arrays).to(device)
    except (KeyError, TypeError) as error:
        raise corrupt(reader.layout.projection(reader.generation.projections[mode]), f"is none ({error})") from error
    return lambda arrays: projection(codec.decode(arrays)["h"])


def with_projections(layout: Layout, generation: Generation, models: Models) -> Generation:
    """Write the projections that ``generation`` lacks, and return it with them; the caller commits it."""
    lacking = {mode: p for mode, p in models.projections().items() if mode not in generation.projections}
    written = {mode: write_projection(layout, projection.arrays()) for mode, projection in lacking.items()}
    return replace(generation, projections={**generation.projections, **written})


def lacks_projections(generation: Generation, codec: Codec) -> bool:
    """Say whether a repair took out a projection, so that candidates of a mode can't be scored."""
    return codec.hidden and any(mode not in generation.projections for mode in generation.modes)
