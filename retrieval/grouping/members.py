"""Turn the rows of groups into what is given out: paths, sizes, scores, and how each copy differs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index_store.catalog import Item
from retrieval.grouping.keeping import Copies, Judge
from retrieval.grouping.results import Group, Member
from retrieval.grouping.scores import PairScores, rounded

SMALLER = 0.95  # ratio of sides below which a copy is smaller


@dataclass(frozen=True)
class Describer:
    """Describes the rows of one index."""

    judge: Judge
    scores: PairScores | None  # None: the index stores no tensors
    there: NDArray[np.bool_]  # which rows have a file as it was indexed

    def copies(self, copies: Copies) -> Group:
        """Describe copies, the kept one first, the others by path."""
        others = sorted(copies.verdicts, key=lambda row: self._item(row).uri)
        scores = self._scores_with(copies.kept, others)
        members = [self._member(row, self._changes(copies, row), _share(copies, row), scores[row]) for row in others]
        return Group("same", (self._member(copies.kept, is_kept=True), *members), self.judge.reason(copies))

    def similar(self, rows: Sequence[int]) -> Group:
        """Describe similar images in the order given."""
        scores = self._scores_with(rows[0], rows[1:])
        members = [self._member(row, score=scores[row], is_kept=True) for row in rows[1:]]
        return Group("similar", (self._member(rows[0], is_kept=True), *members), "")

    @property
    def _item(self) -> Callable[[int], Item]:
        return self.judge.items

    def _changes(self, copies: Copies, row: int) -> tuple[str, ...]:
        kept, own, verdict = self._item(copies.kept), self._item(row), copies.verdicts[row]
        if kept.sha256 == own.sha256:
            return ("identical bytes",)
        pictures = self.judge.pictures.of(copies.kept), self.judge.pictures.of(row)
        if verdict is None or pictures[0] is None or pictures[1] is None:
            return ("its tensors agree",)
        said = list(verdict.changes(pictures[0], pictures[1]))
        width, height = (own.height, own.width) if verdict.symmetry % 2 else (own.width, own.height)
        if verdict.agreement.extent == "equal" and max(width / kept.width, height / kept.height) < SMALLER:
            said.append("smaller")
        return tuple(said) or ("encoded again",)

    def _scores_with(self, kept: int, others: Sequence[int]) -> Mapping[int, float | None]:
        if self.scores is None:
            return dict.fromkeys(others)
        return dict(zip(others, rounded(self.scores.of(kept, others)), strict=True))

    def _member(
        self,
        row: int,
        changed: tuple[str, ...] = (),
        share: float | None = None,
        score: float | None = None,
        is_kept: bool = False,
    ) -> Member:
        item = self._item(row)
        return Member(
            id=item.id,
            path=item.uri,
            sha256=item.sha256,
            width=item.width,
            height=item.height,
            file_bytes=item.size,
            sharpness=self.judge.quality(row).sharpness,
            changes=changed,
            share=share,
            score=score,
            is_kept=is_kept,
            is_reference=self.judge.is_reference(row),
            is_there=bool(self.there[row]),
        )


def _share(copies: Copies, row: int) -> float | None:
    verdict = copies.verdicts[row]
    return None if verdict is None else round(verdict.share, 4)
