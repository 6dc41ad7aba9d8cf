"""Gather the copies of one picture around the image that is worth keeping."""

import math
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field

from index_store.catalog import Item
from retrieval.grouping.comparing import Verdict, compare
from retrieval.grouping.pictures import Pictures
from retrieval.grouping.quality import ImageQuality
from retrieval.text import human_bytes

ABOUT_AS_MUCH = 0.8  # of the pixels with detail: a copy with that many is as good
TRIES = 4  # images that are tried as the middle of one group

Near = Mapping[int, Set[int]]
"""By row, the rows that may be copies of it."""


@dataclass
class Copies:
    """A kept image and its copies, by row.

    The verdict on a copy is None where its bytes are those of the kept image, or where tensors alone decided.
    """

    kept: int
    verdicts: dict[int, Verdict | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Judge:
    """Decides about the rows of one index."""

    pictures: Pictures
    items: Callable[[int], Item]
    quality: Callable[[int], ImageQuality]
    is_reference: Callable[[int], bool]
    alike_by_tensors: Callable[[int, int], bool]  # for files that are gone
    same: float  # the share of structure from which an image is a copy

    def gather(self, rows: Sequence[int], near: Near) -> list[Copies]:
        """Split the rows of one component into groups of copies, each row compared with the kept one itself."""
        left, found = set(rows), list[Copies]()
        while len(left) > 1:
            middle = max(left, key=self.preference)
            copies = self._around(middle, left, near)
            left -= {middle, copies.kept, *copies.verdicts}
            if copies.verdicts:
                found.append(copies)
        return found

    def preference(self, row: int) -> tuple[bool, bool, float, bool, int, int]:
        """Return a key that is larger for an image that is better kept."""
        quality = self.quality(row)
        return (
            self.is_reference(row),
            quality.sharpness is not None,
            round(math.log(max(quality.detail, 1.0)) / -math.log(ABOUT_AS_MUCH)),
            bool(quality.is_coloured),
            quality.file_bytes,
            -row,
        )

    def _around(self, middle: int, rows: Set[int], near: Near) -> Copies:
        """Return the copies of ``middle`` among ``rows``, or those of a better cut of it."""
        tried: set[int] = set()
        while True:
            copies = self._copies_of(middle, rows, near)
            tried.add(middle)
            wider = [row for row, verdict in copies.verdicts.items() if verdict is not None and verdict.shows_more]
            better = [r for r in wider if r not in tried and self.is_reference(r) >= self.is_reference(middle)]
            if not better or len(tried) == TRIES:
                return copies
            middle = max(better, key=self.preference)

    def _copies_of(self, kept: int, rows: Set[int], near: Near) -> Copies:
        """Compare ``kept`` with the rows near it, and then with those near its copies, until no new copy is found."""
        copies, seen, waiting = Copies(kept), {kept}, [kept]
        while waiting:
            beside = sorted(near[waiting.pop()] & rows - seen)
            seen.update(beside)
            for row in beside:
                is_copy, verdict = self._judge(kept, row)
                if is_copy:
                    copies.verdicts[row] = verdict
                    waiting.append(row)
        return copies

    def _judge(self, kept: int, row: int) -> tuple[bool, Verdict | None]:
        if self.items(row).sha256 == self.items(kept).sha256:
            return True, None
        picture, theirs = self.pictures.of(kept), self.pictures.of(row)
        if picture is None or theirs is None:
            return self.alike_by_tensors(kept, row), None
        verdict = compare(picture, theirs, self.same)
        return verdict.is_copy(self.same), verdict

    def reason(self, copies: Copies) -> str:
        """Say why an image is kept, by what sets it apart from its copies."""
        if self.is_reference(copies.kept):
            return "it lies in a reference folder"
        mine, rest = self.quality(copies.kept), [self.quality(row) for row in copies.verdicts]
        if mine.sharpness is not None and all(each.sharpness is None for each in rest):
            return "its file is the only one that is there"
        verdicts = [verdict.agreement for verdict in copies.verdicts.values() if verdict is not None]
        said = []
        if verdicts and all(each.extent == "inside" for each in verdicts):
            said.append("it shows most")
        if verdicts and all(each.border and each.extent == "around" for each in verdicts):
            said.append("it has no border")
        said += self._worth(mine, rest, self.items(copies.kept))
        return " and ".join(said) or "it is as good as any, and came first"

    def _worth(self, mine: ImageQuality, rest: Sequence[ImageQuality], item: Item) -> list[str]:
        """Return why an image of this quality is kept; empty if nothing sets it apart."""
        if mine.detail * ABOUT_AS_MUCH > max(each.detail for each in rest):
            wider = mine.pixels * ABOUT_AS_MUCH > max(each.pixels for each in rest)
            return [f"it is the largest, {item.width} x {item.height}" if wider else "it is the sharpest"]
        if mine.is_coloured and not any(each.is_coloured for each in rest):
            return ["it has colours"]
        if mine.file_bytes > max(each.file_bytes for each in rest):
            return [f"it is as large and sharp as any, and has the most bytes, {human_bytes(mine.file_bytes)}"]
        return []
