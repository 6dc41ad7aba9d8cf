"""The exact scores of one block of images, as a unit of work that a thread, another process or a machine can do."""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retrieval.devices.precision import SCORING_PRECISION
from retrieval.devices.prefetching import prefetch
from retrieval.devices.threads import side_by_side
from retrieval.encoding.loaded_models import LoadedModels
from retrieval.encoding.stored_tensors import decoding, projections_of
from retrieval.errors import ImageError
from retrieval.images.decoding import read_image
from retrieval.models.modes import Outputs
from retrieval.scoring.aas import QKV, Comparison, PreparedQuery, own_output, score_queries

MOST_OUTPUTS = 1 << 26  # bytes of the outputs of one call

PlacedPairs = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]
"""The places of a block's pairs, and their scores."""


@dataclass(frozen=True)
class PairsJob:
    """A block of images to compare with each other. It holds plain data, so that it can be sent to another process."""

    name: str
    mode: str
    arrays: Mapping[str, NDArray[Any]]  # the images' stored tensors
    asking: tuple[tuple[str, str], ...] | None = None  # path and SHA-256 of the first images, encoded anew; None: all


ScoreJobs = Callable[[Generator[PairsJob, None, None]], Iterator[PlacedPairs]]
"""Scores jobs, and yields their pairs in the order of the jobs."""


class PairScorer:
    """Scores blocks of images with cosine scores; safe to call from many threads."""

    def __init__(self, models: LoadedModels) -> None:
        """Take the models of the index that the blocks come from."""
        self._models, self._projections = models, projections_of(models)

    @torch.inference_mode()
    def __call__(self, job: PairsJob) -> PlacedPairs:
        """Return the pairs of a block; images whose files are gone or changed don't ask as queries.

        Raises:
            MemoryFullError: the device's memory does not hold the images that ask.
        """
        models, device = self._models, self._models.device
        how = Comparison(readout=models.readout(job.mode), precision=SCORING_PRECISION[device.type].dtype)
        stored = {name: torch.from_numpy(np.array(array)).to(device).float() for name, array in job.arrays.items()}
        images = decoding(models.codec, self._projections.get(job.mode))(stored).to(device, how.dtype)
        if job.asking is None:
            first, second, scores = _all_pairs(images, how)
        else:
            first, second, scores = _pairs_of(self._queries(job.mode, job.asking), images, how)
        return first, second, np.clip(scores, -1, 1)

    def _queries(self, mode: str, files: Sequence[tuple[str, str]]) -> dict[int, QKV]:
        """Encode images of the index as queries; by their place."""
        models, outputs, found = self._models, Outputs((mode,)), dict[int, QKV]()
        for place, (path, sha256) in enumerate(files):
            try:
                image, facts = read_image(Path(path), models.rules)
            except ImageError:
                continue
            if facts.sha256 == sha256:
                tensors = models.encode([models.prepare(image, outputs)], "query", outputs).tensors[mode]
                found[place] = tensors.to(models.device)
        return found


def score_here(models: LoadedModels, jobs: Generator[PairsJob, None, None]) -> Iterator[PlacedPairs]:
    """Score jobs in this process: of small models on a CPU, several side by side, each on one core."""
    scorer = PairScorer(models)
    if not models.run_side_by_side():
        yield from map(scorer, jobs)  # none is made ahead: a block of a large model takes 100 MB
        return
    for _, pairs in prefetch(jobs, scorer, lambda _: True, side_by_side()):
        yield pairs


def _all_pairs(images: QKV, how: Comparison) -> PlacedPairs:
    """Compare each image with those after it."""
    own, count, scores = own_output(images, how), len(images), []
    for at in range(count - 1):
        query, after = PreparedQuery.of(images[at : at + 1], how, own=own[at : at + 1]), slice(at + 1, None)
        scores.append(score_queries([query], images[after], own[after]))
    first, second = np.triu_indices(count, 1)
    return first, second, torch.cat(scores, dim=1)[0].double().cpu().numpy()


def _pairs_of(queries: Mapping[int, QKV], images: QKV, how: Comparison) -> PlacedPairs:
    """Compare each query with all images but the one in its own place."""
    places = np.array(list(queries), np.int64)
    scores = _scores([PreparedQuery.of(query, how) for query in queries.values()], images, own_output(images, how))
    asking, second = np.nonzero(places[:, None] != np.arange(len(images)))
    return places[asking], second, scores[asking, second]


def _scores(queries: Sequence[PreparedQuery], images: QKV, own: Tensor) -> NDArray[np.float64]:
    """Return the scores of queries and images, ``[queries, images]``, from as many queries at once as fit in memory."""
    one = 4 * len(images) * images.q[0, ..., 0].numel() * images.v.shape[-1]
    step = max(1, MOST_OUTPUTS // one)
    scores = [score_queries(queries[at : at + step], images, own) for at in range(0, len(queries), step)]
    return torch.cat(scores).double().cpu().numpy() if scores else np.zeros((0, len(images)))
