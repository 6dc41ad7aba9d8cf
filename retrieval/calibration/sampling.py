"""Draw random pairs of an index's images, a bounded number of them, and score them exactly, as a search would."""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from index_store.reader import IndexReader
from retrieval.calibration.pair_jobs import PairsJob, PlacedPairs, score_here
from retrieval.encoding.loaded_models import LoadedModels
from retrieval.encoding.recipe import codec_of, stored_recipe
from retrieval.encoding.stored_tensors import qkv_decoder

PAIRS = 4096  # a share of half of them is then known to 1.6 points in 19 of 20 samples
MOST_IMAGES = 1024  # that pairs are drawn from: four pairs an image
MOST_BYTES = 1 << 30  # of their stored tensors, which are read once
BLOCK = 32  # images whose tensors are in memory at a time, where few of them ask
MOST_ENCODED = 64  # images that are encoded again as queries, where a query's tensors differ from a stored image's
ENCODED_SHARE = 0.1  # of the images, at most, so that this never costs more than a tenth of the build
SEED = 2025


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
    def of_block(cls, block: NDArray[np.int64], pairs: PlacedPairs) -> "ScoredPairs":
        """Return the pairs of a block, whose rows take the place of their places in it."""
        first, second, scores = pairs
        return cls(block[first], block[second], scores)

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


def pair_jobs(reader: IndexReader, mode: str, plan: PairPlan) -> Generator[PairsJob, None, None]:
    """Read the blocks of a plan, one after another.

    Raises:
        IndexCorruptError: tensors or their projection are damaged.
    """
    # Jobs are decoded by the models' own projection: what the index stores is only looked at for damage.
    qkv_decoder(reader, codec_of(stored_recipe(reader, reader.layout.root).settings), mode, torch.device("cpu"))
    for number, block in enumerate(plan.blocks):
        asking = None
        if plan.asking is not None:
            asking = tuple((item.uri, item.sha256) for item in reader.items(block[: plan.asking[number]]))
        yield PairsJob(f"pairs-{mode}-{number}", mode, reader.attention(mode, block.tolist()), asking)


def sample_scores(reader: IndexReader, models: LoadedModels, mode: str, plan: PairPlan) -> Iterator[ScoredPairs]:
    """Yield the pairs of each block, scored in this process.

    Args:
        reader: the index.
        models: those of the index.
        mode: whose tensors are compared.
        plan: of :func:`plan_pairs` for the index.
    """
    scored = score_here(models, pair_jobs(reader, mode, plan))
    yield from map(ScoredPairs.of_block, plan.blocks, scored)
