"""Exact scores of pairs of indexed images, from the tensors that the index stores; no model is loaded.

Both images of a pair have the gallery's tensors, so a score is symmetric, and an image's score with itself is 1. With
pairwise noise a search's score of the same pair is another one.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from index_store.reader import IndexReader
from retrieval.encoding.recipe import Recipe, codec_of
from retrieval.encoding.stored_tensors import qkv_decoder
from retrieval.scoring.aas import QKV, Comparison, aligned_attention_scores, bounded

PREFERRED = ("instance", "lowlevel", "semantic", "style")  # the mode that tells copies best first
RANDOM_PAIRS = 128  # whose median score tells how close any two images are
ASKING = 16  # images of these pairs that ask
AT_ONCE = 64
SEED = 2334


class PairScores:
    """Scores pairs of rows in one mode; a row without stored tensors has no scores."""

    def __init__(self, reader: IndexReader, recipe: Recipe, mode: str) -> None:
        """Take an opened index, its recipe, and one of its modes."""
        self.mode = mode
        self._reader, self._held = reader, reader.has_tensors(mode)
        self._decode = qkv_decoder(reader, codec_of(recipe.settings), mode, torch.device("cpu"))
        self._how = Comparison(readout=recipe.targets[mode].readout)
        self.typical = self._typical()

    def of(self, row: int, others: Sequence[int]) -> NDArray[np.float32]:
        """Return the scores ``[len(others)]`` of one row with others; NaN where an image has no tensors."""
        scores = np.full(len(others), np.nan, np.float32)
        if not self._held[row]:
            return scores
        places = [place for place, other in enumerate(others) if self._held[other]]
        query = self._tensors([row])
        for start in range(0, len(places), AT_ONCE):
            some = places[start : start + AT_ONCE]
            with torch.inference_mode():
                found = aligned_attention_scores(query, self._tensors([others[place] for place in some]), self._how)
            scores[some] = found.numpy()
        return scores

    def closeness(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return where scores lie between that of a random pair, 0, and that of an image with itself, 1."""
        close: NDArray[np.float32] = (scores - self.typical) / (1 - self.typical)
        return close

    def _tensors(self, rows: Sequence[int]) -> QKV:
        stored = self._reader.attention(self.mode, rows)
        return self._decode({name: torch.from_numpy(array).float() for name, array in stored.items()})

    def _typical(self) -> float:
        rows = np.flatnonzero(self._held)
        if len(rows) < 2:
            return 0.0
        random = np.random.default_rng(SEED)
        asking = random.integers(0, len(rows), ASKING)
        others = (asking[:, None] + random.integers(1, len(rows), (ASKING, RANDOM_PAIRS // ASKING))) % len(rows)
        each = [self.of(int(rows[one]), rows[many].tolist()) for one, many in zip(asking, others, strict=True)]
        return min(0.999, float(np.median(each)))


def rounded(scores: NDArray[np.floating]) -> list[float | None]:
    """Return scores as results hold them, to six digits; None for NaN."""
    return [None if np.isnan(score) else round(bounded(score), 6) for score in scores.tolist()]


def choose_mode(reader: IndexReader) -> str | None:
    """Return the mode whose stored tensors tell copies best; None if the index stores none."""
    stored = [mode for mode in reader.generation.modes if bool(reader.has_tensors(mode).any())]
    return next((mode for mode in (*PREFERRED, *stored) if mode in stored), None)
