"""Where searches find the vectors and tensors of an index."""

from dataclasses import dataclass

import torch

from index_store.reader import IndexReader
from retrieval.encoding.recipe import Recipe
from retrieval.search.coarse_vectors import CoarseVectors, LocalVectors
from retrieval.search.tensors.local_scorer import CandidateScorer, LocalScorer
from retrieval.search.tensors.memory_cache import default_budget


@dataclass(frozen=True)
class IndexData:
    """Where the vectors and tensors of an opened index are compared with questions: here, or on replicas."""

    vectors: CoarseVectors
    scorer: CandidateScorer

    @classmethod
    def here(cls, reader: IndexReader, recipe: Recipe, device: torch.device, memory: int | None) -> "IndexData":
        """Return this process's; ``memory`` are bytes of candidates that stay in the device's, None for the default."""
        memory = default_budget(device) if memory is None else memory
        return cls(LocalVectors(reader, device), LocalScorer(recipe, device, memory))
