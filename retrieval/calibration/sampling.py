"""Score random pairs of an index's images exactly, as a search would, from a bounded number of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from index_store.reader import IndexReader
from retrieval.devices.precision import SCORING_PRECISION
from retrieval.encoding.loaded_models import LoadedModels
from retrieval.encoding.stored_tensors import qkv_decoder
from retrieval.errors import ImageError
from retrieval.images.decoding import read_image
from retrieval.models.modes import Outputs
from retrieval.scoring.aas import QKV, Comparison, aligned_attention_scores, bounded, own_output

PAIRS = 4096  # a share of half of them is then known to 1.6 points in 19 of 20 samples
MOST_IMAGES = 1024  # that pairs are drawn from: four pairs an image
MOST_BYTES = 1 << 30  # of their stored tensors, which are read once
BLOCK = 32  # images whose tensors are in memory at a time; pairs are drawn among them
MOST_ENCODED = 64  # images that are encoded again as queries, where a query's tensors differ from a stored image's
ENCODED_SHARE = 0.1  # of the images, at most, so that this never costs more than a tenth of the build
SEED = 2025


@dataclass(frozen=True)
class PairPlan:
    """Which images are compared: those of one block with each other."""

    blocks: tuple[NDArray[np.int64], ...]  # rows of the index
    asking: tuple[int, ...]  # by block: how many of its first images ask
    each: int  # images that each of them is compared with: the next ones of its block, in a circle
    encodes: bool = False  # whether images that ask are encoded again, as queries

    @property
    def pairs(self) -> int:
        """The number of pairs."""
        return sum(self.asking) * self.each


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
    each = max(1, min((len(chosen) - 1) // 2, PAIRS // len(chosen)))
    blocks = np.array_split(chosen, max(1, len(chosen) // max(BLOCK, 2 * each + 1)))
    if not roles_differ:
        return PairPlan(tuple(blocks), tuple(len(block) for block in blocks), each)
    asking = max(1, min(MOST_ENCODED, round(ENCODED_SHARE * len(rows))))
    shares = tuple(len(part) for part in np.array_split(np.arange(asking), len(blocks)))
    return PairPlan(tuple(blocks), shares, min(len(block) for block in blocks) - 1, encodes=True)


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
    for block, asking in zip(plan.blocks, plan.asking, strict=True):
        with torch.inference_mode():
            arrays = reader.attention(mode, block.tolist())
            stored = {name: torch.from_numpy(np.array(array)).to(device).float() for name, array in arrays.items()}
            images = decode(stored).to(device, how.dtype)
            queries = _queries(reader, models, mode, block[:asking]) if plan.encodes else _items(images)
            own, others = own_output(images, how), _others(len(block), plan.each)
            scores = []
            for place, query in queries.items():
                after = torch.from_numpy(others[place]).to(device)
                scores += aligned_attention_scores(query, images[after], how, candidates_own=own[after]).tolist()
        places = np.array(list(queries), np.int64)
        first, second = np.repeat(block[places], plan.each), block[others[places].flatten()]
        yield ScoredPairs(first, second, np.array([bounded(score) for score in scores], np.float64))


def _others(count: int, each: int) -> NDArray[np.int64]:
    """Return, ``[count, each]``, the ``each`` places after every place of a block, in a circle."""
    after: NDArray[np.int64] = (np.arange(count)[:, None] + np.arange(1, each + 1)) % count
    return after


def _items(images: QKV) -> dict[int, QKV]:
    return {place: images[place : place + 1] for place in range(len(images))}


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
