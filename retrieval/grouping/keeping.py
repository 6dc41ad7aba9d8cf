"""Gather the copies of one picture around the image that is worth keeping."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from index_store.catalog import Item
from retrieval.grouping.comparing import Verdict, compare
from retrieval.grouping.pictures import Pictures
from retrieval.grouping.quality import Quality
from retrieval.text import human_bytes

ABOUT_AS_MUCH = 0.8  # of the pixels with detail: a copy with that many is as good
TRIES = 4  # images that are tried as the middle of one group

Identical = Mapping[int, str]
"""The SHA-256 of each row."""


@dataclass
class Copies:
    """A kept image and its copies, by row; the verdict on each copy is None where its bytes are those of the kept one
    or where tensors alone decided."""

    kept: int
    verdicts: dict[int, Verdict | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Judge:
    """Decides about the rows of one index."""

    pictures: Pictures
    items: Callable[[int], Item]
    quality: Callable[[int], Quality]
    is_reference: Callable[[int], bool]
    alike_by_tensors: Callable[[int, int], bool]  # for files that are gone
    same: float  # the share of structure from which an image is a copy

    def preference(self, row: int) -> tuple[bool, bool, float, bool, int, str]:
        """Return a key that is larger for an image that is better kept."""
        quality, item = self.quality(row), self.items(row)
        return (
            self.is_reference(row),
            quality.sharpness is not None,
            _step(quality.detail),
            bool(quality.is_coloured),
            quality.file_bytes,
            _reversed(item.uri),
        )

    def gather(self, rows: Sequence[int]) -> list[Copies]:
        """Split the rows of one component into groups of copies, each row compared with the kept one itself."""
        left, found = set(rows), list[Copies]()
        while len(left) > 1:
            middle = max(left, key=self.preference)
            copies = self._around(middle, left)
            left -= {middle, copies.kept, *copies.verdicts}
            if copies.verdicts:
                found.append(copies)
        return found

    def _around(self, middle: int, rows: Iterable[int]) -> Copies:
        """Return the copies of ``middle`` among ``rows``, or those of a better cut of it."""
        tried: set[int] = set()
        while True:
            copies = self._copies_of(middle, rows)
            tried.add(middle)
            better = [row for row, verdict in copies.verdicts.items() if verdict is not None and verdict.shows_more]
            better = [row for row in better if row not in tried and self.is_reference(row) >= self.is_reference(middle)]
            if not better or len(tried) == TRIES:
                return copies
            middle = max(better, key=self.preference)

    def _copies_of(self, kept: int, rows: Iterable[int]) -> Copies:
        copies, own = Copies(kept), self.items(kept)
        picture = self.pictures.of(kept)
        for row in sorted(set(rows) - {kept}):
            theirs = self.pictures.of(row)
            if self.items(row).sha256 == own.sha256:
                copies.verdicts[row] = None
            elif picture is None or theirs is None:
                if self.alike_by_tensors(kept, row):
                    copies.verdicts[row] = None
            else:
                verdict = compare(picture, theirs)
                if verdict.share >= self.same:
                    copies.verdicts[row] = verdict
        return copies

    def reason(self, copies: Copies) -> str:
        """Say why an image is kept, by the first thing that sets it apart from the best of its copies."""
        if self.is_reference(copies.kept):
            return "it lies in a reference folder"
        others = [row for row in copies.verdicts]
        verdicts = [verdict for verdict in copies.verdicts.values() if verdict is not None]
        mine, item = self.quality(copies.kept), self.items(copies.kept)
        rest = [self.quality(row) for row in others]
        if mine.sharpness is not None and all(each.sharpness is None for each in rest):
            return "its file is the only one that is there"
        said = []
        if verdicts and all(verdict.agreement.extent == "inside" for verdict in verdicts):
            said.append("it shows most")
        most = max(each.detail for each in rest)
        if mine.detail * ABOUT_AS_MUCH > most:
            wider = mine.pixels * ABOUT_AS_MUCH > max(each.pixels for each in rest)
            said.append(f"it is the largest, {item.width} x {item.height}" if wider else "it is the sharpest")
        elif mine.is_coloured and not any(each.is_coloured for each in rest):
            said.append("it has colours")
        elif any(verdict.agreement.border and verdict.agreement.extent == "around" for verdict in verdicts):
            said.append("it has no border")
        elif mine.file_bytes > max(each.file_bytes for each in rest):
            said.append(f"it is as large and sharp as any, and has the most bytes, {human_bytes(mine.file_bytes)}")
        return " and ".join(said) or "it is as good as any, and its path comes first"


def _step(detail: float) -> float:
    """Return one number for details that are about as many, so that colours and bytes may decide."""
    from math import log

    return round(log(max(detail, 1.0)) / -log(ABOUT_AS_MUCH))


def _reversed(text: str) -> str:
    """Return a text that sorts the other way around."""
    return "".join(chr(0x10FFFF - ord(letter)) for letter in text)
