"""Score random pairs of an index's images exactly, as a search would, from a bounded number of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from index_store.reader import IndexReader
from retrieval.devices.precision import SCORING_PRECISION
from retrieval.encoding.loaded_models import LoadedModels
from retrieval.encoding.stored_tensors import qkv_decoder
from retrieval.errors import ImageError
from retrieval.images.decoding import read_image
from retrieval.models.modes import Outputs
from retrieval.scoring.aas import QKV, Comparison, PreparedQuery, own_output, score_queries

PAIRS = 4096  # a share of half of them is then known to 1.6 points in 19 of 20 samples
MOST_IMAGES = 1024  # that pairs are drawn from: four pairs an image
MOST_BYTES = 1 << 30  # of their stored tensors, which are read once
BLOCK = 32  # images whose tensors are in memory at a time, where few of them ask
MOST_OUTPUTS = 1 << 26  # bytes of the outputs of one call
MOST_ENCODED = 64  # images that are encoded again as queries, where a query's tensors differ from a stored image's
ENCODED_SHARE = 0.1  # of the images, at most, so that this never costs more than a tenth of the build
SEED = 2025

PlacedPairs = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]
"""The places of a block's pairs, and their scores."""


@dataclass(frozen=True)
class PairPlan:
    """Which images are compared: all those of one block with each other."""

    blocks: tuple[NDArray[np.int64], ...]  # rows of the index
    asking: tuple[int, ...] | None = None  # by block: how many of its first images ask, encoded again; None: all do

    @property
    def pairs(self) -> int:
        """The number of pairs."""
        if self.asking is None:
            return sum(len(block) * (len(block) - 1) // 2 for block in self.blocks)
        return sum(asking * (len(block) - 1) for block, asking in zip(self.blocks, self.asking, strict=True))


@dataclass(frozen=True)
class ScoredPairs:
    """Pairs of rows of the index, and their exact scores."""

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    scores: NDArray[np.float64]

    @classmethod
    def join(cls, parts: Sequence["ScoredPairs"]) -> "ScoredPairs":
        """Return the pairs of all parts, one at least."""
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("first", "second", "scores")))


def plan_pairs(rows: NDArray[np.int64], row_bytes: int, roles_differ: bool, seed: int = SEED) -> PairPlan:
    """Draw pairs of different images, the same ones for the same rows.

    Args:
        rows: of the index, those whose tensors are stored; two at least.
        row_bytes: of one image's stored tensors.
        roles_differ: whether an image that asks has to be encoded again.
        seed: of the draw.
    """
    random = np.random.default_rng(seed)
    most = max(BLOCK, min(MOST_IMAGES, MOST_BYTES // max(1, row_bytes)))
    chosen = random.permutation(rows)[:most]
    side = BLOCK if roles_differ else 1 + 2 * PAIRS // len(chosen)
    blocks = tuple(np.array_split(chosen, max(1, round(len(chosen) / side))))
    if not roles_differ:
        return PairPlan(blocks)
    asking = max(1, min(MOST_ENCODED, round(ENCODED_SHARE * len(rows))))
    return PairPlan(blocks, tuple(len(part) for part in np.array_split(np.arange(asking), len(blocks))))


def sample_scores(reader: IndexReader, models: LoadedModels, mode: str, plan: PairPlan) -> Iterator[ScoredPairs]:
    """Yield the pairs of each block with cosine scores; images whose files are gone or changed don't ask as queries.

    Args:
        reader: the index.
        models: those of the index.
        mode: whose tensors are compared.
        plan: of :func:`plan_pairs` for the index.
    """
    device = models.device
    decode = qkv_decoder(reader, models.codec, mode, device)
    how = Comparison(readout=models.readout(mode), precision=SCORING_PRECISION[device.type].dtype)
    for number, block in enumerate(plan.blocks):
        with torch.inference_mode():
            arrays = reader.attention(mode, block.tolist())
            stored = {name: torch.from_numpy(np.array(array)).to(device).float() for name, array in arrays.items()}
            images = decode(stored).to(device, how.dtype)
            if plan.asking is None:
                first, second, scores = _all_pairs(images, how)
            else:
                queries = _queries(reader, models, mode, block[: plan.asking[number]])
                first, second, scores = _pairs_of(queries, images, how)
        yield ScoredPairs(block[first], block[second], np.clip(scores, -1, 1))


def _all_pairs(images: QKV, how: Comparison) -> PlacedPairs:
    """Compare all images with each other: each attends to each once, which serves both directions of a pair."""
    own, one_way = own_output(images, how), replace(how, directions="query_to_candidate")
    each = [slice(place, place + 1) for place in range(len(images))]
    directed = _scores([PreparedQuery.of(images[one], one_way, own=own[one]) for one in each], images)
    first, second = np.triu_indices(len(images), 1)
    return first, second, ((directed + directed.T) / 2)[first, second]


def _pairs_of(queries: Mapping[int, QKV], images: QKV, how: Comparison) -> PlacedPairs:
    """Compare each query with all images but the one in its own place."""
    places = np.array(list(queries), np.int64)
    scores = _scores([PreparedQuery.of(query, how) for query in queries.values()], images, own_output(images, how))
    asking, second = np.nonzero(places[:, None] != np.arange(len(images)))
    return places[asking], second, scores[asking, second]


def _scores(queries: Sequence[PreparedQuery], images: QKV, own: Tensor | None = None) -> NDArray[np.float64]:
    """Return the scores of queries and images, ``[queries, images]``, from as many queries at once as fit in memory."""
    one = 4 * len(images) * images.q[0, ..., 0].numel() * images.v.shape[-1]
    step = max(1, MOST_OUTPUTS // one)
    scores = [score_queries(queries[at : at + step], images, own) for at in range(0, len(queries), step)]
    return torch.cat(scores).double().cpu().numpy() if scores else np.zeros((0, len(images)))


def _queries(reader: IndexReader, models: LoadedModels, mode: str, rows: NDArray[np.int64]) -> dict[int, QKV]:
    """Encode images of the index as queries; by their place among ``rows``."""
    found: dict[int, QKV] = {}
    for place, item in enumerate(reader.items(rows)):
        try:
            image, facts = read_image(Path(item.uri), models.rules)
        except ImageError:
            continue
        if facts.sha256 == item.sha256:
            outputs = Outputs((mode,))
            tensors = models.encode([models.prepare(image, outputs)], "query", outputs).tensors[mode]
            found[place] = tensors.to(models.device)
    return found
