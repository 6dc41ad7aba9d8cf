"""Find the copies of pictures in an index, and pictures that are much alike.

The coarse index names pairs of near images, small squares choose among them, and larger pictures decide whether one is
a copy of the other. Exact scores decide about images whose files are gone, and about those that are only alike.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index_store.catalog import Item
from index_store.reader import IndexReader
from index_store.remote.mirror import index_name
from index_store.remote.pull import existing_root
from retrieval.encoding.batches import workers
from retrieval.encoding.coarse_encoders import usable_encoders
from retrieval.encoding.recipe import stored_recipe
from retrieval.encoding.timing import SharedTiming
from retrieval.errors import UsageError
from retrieval.files import absolute_path
from retrieval.grouping.components import components, same_digests, stars
from retrieval.grouping.keeping import Copies, Judge
from retrieval.grouping.members import Describer
from retrieval.grouping.neighbours import Pairs, near_pairs
from retrieval.grouping.pictures import Pictures
from retrieval.grouping.quality import ImageQuality, measure_quality
from retrieval.grouping.results import Duplicates
from retrieval.grouping.scores import PairScores, choose_mode
from retrieval.grouping.screening import screened
from retrieval.images.decoding import DecodeRules
from retrieval.images.shards.naming import prefixes_below
from retrieval.progress import Cancellation, OnProgress, Progress, ignore_progress
from retrieval.search.results import Note
from retrieval.settings import BuildSettings, DuplicateSettings

SIMILAR_CLOSENESS = 0.6  # of vectors: pairs above it get an exact score
SIMILAR_RANK = 4
EQUAL_TENSORS = 0.985  # closeness by exact scores from which an image without a file is a copy


def find_duplicates(
    index: str | Path | IndexReader,
    settings: DuplicateSettings | None = None,
    on_progress: OnProgress = ignore_progress,
    cancel: Cancellation | None = None,
) -> Duplicates:
    """Find groups of copies, and of images that are much alike; deletes and changes nothing.

    Args:
        index: a folder, an ``s3://`` URL, or an opened index.
        settings: thresholds, reference folders, and the mode whose scores count.
        on_progress: hears of the stages "neighbours", "pictures", "pairs", "copies" and "similar".
        cancel: ends the work between some images and others.

    Raises:
        UsageError: the index has no vectors, an unknown mode, or a reference folder without images of the index.
        IndexNotFoundError, IndexCorruptError, IndexIncompatibleError: see :mod:`index_store.errors`.
        CancelledError: ``cancel`` was requested.
    """
    reader = index if isinstance(index, IndexReader) else IndexReader(existing_root(index))
    return _Finder(reader, settings or DuplicateSettings(), on_progress, cancel).find()


class _Finder:
    """One run over one opened index."""

    def __init__(
        self, reader: IndexReader, settings: DuplicateSettings, on_progress: OnProgress, cancel: Cancellation | None
    ) -> None:
        self._reader, self._settings, self._tell, self._cancel = reader, settings, on_progress, cancel
        self._recipe = stored_recipe(reader, reader.layout.root)
        own = self._recipe.settings
        self._rules = DecodeRules(own.alpha, None, colour=own.colour)
        self._pictures = Pictures(reader, self._rules, workers(BuildSettings(workers=settings.workers)))
        self._mode = settings.mode or choose_mode(reader)
        if self._mode is not None and self._mode not in self._recipe.targets:
            raise UsageError(f"unknown mode '{self._mode}'; modes of this index: {', '.join(self._recipe.targets)}")
        self._references = self._reference_rows(settings.references)
        self._timing = SharedTiming(1)
        self._item = cache(self._read_item)
        self._judge = Judge(
            self._pictures,
            self._item,
            cache(self._measure),
            self._references.__contains__,
            self._alike_by_tensors,
            settings.same,
        )
        self._scores: PairScores | None = None

    def find(self) -> Duplicates:
        """Return everything that was found."""
        reader = self._reader
        encoders = usable_encoders(reader)
        if not encoders and len(reader) > 1:
            raise UsageError(f"{reader.layout.root} has no vectors to compare: it was built without encoders")
        with self._timing.of("neighbours"):
            pairs = near_pairs(reader, encoders, self._settings.neighbours, self._tell, self._cancel)
        with self._timing.of("pictures"):
            squares, there = self._pictures.squares(np.arange(len(reader)), self._tell, self._cancel)
        with self._timing.of("pairs"):
            promising = screened(pairs, squares, there, self._tell, self._cancel)
            del squares
        with self._timing.of("scores"):
            if self._mode is not None:
                self._scores = PairScores(reader, self._recipe, self._mode)
        with self._timing.of("copies"):
            copies = self._copies(promising, pairs, there)
        with self._timing.of("similar"):
            similar = self._similar(pairs, copies)
        with self._timing.of("describing"):
            describe = Describer(self._judge, self._scores, there)
            groups = [*map(describe.copies, copies), *map(describe.similar, similar)]
        order = sorted(groups, key=lambda group: (group.level != "same", -len(group.members), group.kept.path))
        notes = self._notes(there)
        name = index_name(reader.layout.root)
        return Duplicates(name, len(reader), self._mode, tuple(order), notes, self._timing.seconds)

    def _read_item(self, row: int) -> Item:
        return self._reader.items([row])[0]

    def _measure(self, row: int) -> ImageQuality:
        return measure_quality(self._item(row), self._rules)

    def _reference_rows(self, folders: Sequence[str]) -> frozenset[int]:
        paths, found = self._reader.uris() if folders else [], set[int]()
        for folder in folders:
            place = absolute_path(folder)
            inside = {row for row, path in enumerate(paths) if path == place or path.startswith(prefixes_below(place))}
            if not inside:
                raise UsageError(f"{folder}: the index has no image in this reference folder")
            found |= inside
        return frozenset(found)

    def _copies(self, promising: Pairs, pairs: Pairs, there: NDArray[np.bool_]) -> list[Copies]:
        equal = same_digests([item.sha256 for item in self._reader.items()])
        lost = pairs.where(~(there[pairs.first] & there[pairs.second]) & (pairs.closeness >= SIMILAR_CLOSENESS))
        edges = [(promising.first, promising.second), equal, (lost.first, lost.second)]
        first, second = (np.concatenate([edge[side] for edge in edges]).tolist() for side in range(2))
        found, parts = list[Copies](), components(first, second)
        near: dict[int, set[int]] = {}
        for one, other in zip(first, second, strict=True):
            near.setdefault(one, set()).add(other)
            near.setdefault(other, set()).add(one)
        for number, rows in enumerate(parts):
            if self._cancel is not None:
                self._cancel.check()
            found += self._judge.gather(rows, near)
            self._tell(Progress("copies", number + 1, len(parts)))
        return found

    def _alike_by_tensors(self, first: int, second: int) -> bool:
        return self._scores is not None and bool(
            self._scores.closeness(self._scores.of(first, [second]))[0] >= EQUAL_TENSORS
        )

    def _similar(self, pairs: Pairs, copies: Sequence[Copies]) -> list[list[int]]:
        """Return stars of alike images; a group of copies is stood for by its kept image."""
        kept = {row: each.kept for each in copies for row in (each.kept, *each.verdicts)}
        near = pairs.where((pairs.closeness >= SIMILAR_CLOSENESS) & (pairs.rank < SIMILAR_RANK))
        asked: dict[int, set[int]] = {}
        for one, other in zip(near.first.tolist(), near.second.tolist(), strict=True):
            low, high = sorted((kept.get(one, one), kept.get(other, other)))
            if low != high:
                asked.setdefault(low, set()).add(high)
        found: dict[tuple[int, int], float] = {}
        if self._scores is None:
            return []
        for number, (row, others) in enumerate(sorted(asked.items())):
            if self._cancel is not None:
                self._cancel.check()
            wanted = sorted(others)
            for other, close in zip(wanted, self._scores.closeness(self._scores.of(row, wanted)), strict=True):
                if close >= self._settings.similar:
                    found[row, other] = float(close)
            self._tell(Progress("similar", number + 1, len(asked)))
        return stars(found)

    def _notes(self, there: NDArray[np.bool_]) -> tuple[Note, ...]:
        notes = []
        if lost := int((~there).sum()):
            message = f"{lost} images are compared by their tensors alone: their files are gone or have changed since"
            notes.append(Note("left_out", message, advice="update-the-index", facts={"images": lost}))
        if self._mode is None:
            notes.append(Note("no_tensors", "the index stores no tensors, so images that are only alike are not found"))
        return tuple(notes)
