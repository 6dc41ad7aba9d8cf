"""Build or update an index: plan, compute batch after batch, commit segment after segment.

A build can be stopped at any moment, by Ctrl-C or by a kill. What was committed stays, the next build goes on from
there, and computes the same batches, and so the same numbers, as one that was never stopped.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Unpack

from index_store.catalog import Reject, uri_of
from index_store.codecs import find_codec
from index_store.commit import commit
from index_store.garbage import clear_uncommitted, drop_expired
from index_store.generation import Generation, SegmentRecord
from index_store.layout import Layout
from index_store.locate import was_committed
from index_store.lock import writer_lock
from index_store.reader import IndexReader
from index_store.remote.mirror import index_name
from index_store.segment_writer import SegmentWriter
from index_store.vectors.training import train_where_due
from retrieval.encoding.batches import Failure, FileBatch, batch_size, workers
from retrieval.encoding.fingerprint import grown_fingerprint
from retrieval.encoding.loaded_models import InFlightBatch, LoadedModels, ModelInputs, load_models
from retrieval.encoding.recipe import Recipe, continued_recipe, new_recipe, stored_recipe
from retrieval.encoding.stored_tensors import coverage, lacks_projections, with_projections
from retrieval.encoding.timing import WRITE, StageClock
from retrieval.images.discovery import Listing
from retrieval.indexing.changes import Changes, find_changes, find_sources, item_of
from retrieval.indexing.committer import SegmentCommitter
from retrieval.indexing.estimate import Workload, check_estimate, estimate_workload
from retrieval.indexing.fill import Filled, Filler
from retrieval.indexing.missing import Missing, find_missing
from retrieval.indexing.pipeline import Pipeline
from retrieval.indexing.reports import BuildEvent, BuildReport
from retrieval.models.registry import describe_extractor
from retrieval.settings import BuildSettings, ModelChoices
from retrieval.text import counted
from retrieval.version import CREATED_BY


def build_index(
    sources: str | Path | Sequence[str | Path],
    index: str | Path | None = None,
    *,
    modes: Sequence[str] | None = None,
    run: BuildSettings | None = None,
    on_event: Callable[[BuildEvent], None] = lambda event: None,
    **choices: Unpack[ModelChoices],
) -> BuildReport:
    """Make an index of the images in ``sources``, or bring an existing one up to date with them.

    Args:
        sources: folders (walked recursively) and files.
        index: where; by default FOLDER.diffsim in the working directory.
        modes: kinds of likeness to cache tensors for; by default the index's own, or style, instance, semantic. Those
            that an existing index lacks are added to it, and computed for all its items.
        run: device, batch size and the like; nothing there changes a score.
        on_event: told of every step; may raise KeyboardInterrupt to stop the build.
        **choices: fields of :class:`retrieval.settings.ModelSettings`; those left out are the index's own. Encoders
            that an existing index lacks are added to it.

    Raises:
        UsageError: nothing to index, or an unknown name.
        IndexIncompatibleError: the index was made with other settings or weights.
        IndexLockedError, IndexCorruptError, ModelError, NoSpaceError: see :mod:`index_store.errors`.
        KeyboardInterrupt: after what was complete has been committed.
    """
    started = time.monotonic()
    paths, listing, root = find_sources(sources, index)
    layout, run = Layout(root), run or BuildSettings()
    fresh = None if was_committed(layout) else new_recipe(modes, choices, run)  # asked for nonsense: leave no trace
    with writer_lock(layout):
        try:
            builder = _Builder(root, paths, listing, run, on_event)
            builder.prepare(fresh, modes, choices)
            builder.run()
            report = builder.report([str(path) for path in listing.unreadable])
        except BaseException:
            _remove_if_empty(layout)
            raise
    return replace(report, seconds=time.monotonic() - started)


class _Builder:
    """One build under the writer's lock."""

    def __init__(
        self,
        root: Path,
        sources: Sequence[Path],
        listing: Listing,
        run: BuildSettings,
        on_event: Callable[[BuildEvent], None],
    ) -> None:
        self._root, self._layout = root, Layout(root)
        self._sources = [uri_of(path.absolute()) for path in sources]
        self._listing, self._run, self._emit = listing, run, on_event
        self._reader = IndexReader(root) if was_committed(self._layout) else None
        self._found = None if self._reader is None else drop_expired(self._layout, self._reader.generation)
        clear_uncommitted(self._layout, self._found)
        self._work: Changes = find_changes(listing, sources, self._reader, run.retry_rejects)
        self._added = self._replaced = self._done = self._total = self._rejected = 0
        self._backlog = Missing()
        self._filled = Filled()
        self._clock = StageClock(workers(run))
        self._recipe: Recipe
        self._pipeline: Pipeline | None = None  # None: nothing is to be computed
        self._models: LoadedModels
        self._commits: SegmentCommitter

    def prepare(self, fresh: Recipe | None, modes: Sequence[str] | None, choices: ModelChoices) -> None:
        """Settle what is computed, and load the models where there is anything to compute or to add."""
        if self._reader is None:
            self._recipe = fresh or new_recipe(modes, choices, self._run)
        else:
            self._recipe = continued_recipe(self._reader, self._root, modes, choices, self._run)
            gone = {*self._work.vanished, *self._work.replaced.values()}
            wanted, targets = self._recipe.wanted, self._recipe.targets
            self._backlog = find_missing(self._reader, wanted, targets, without=gone, moved=self._work.moved)
            self._filled = Filled(0, self._backlog.unavailable)
        chosen = self._recipe.chosen
        self._total = len(self._work.pending) + len(self._backlog)
        self._emit(BuildEvent("planned", self._plan_in_words(), total=self._total))
        title = describe_extractor(chosen.name).title
        self._emit(BuildEvent("model", f"{chosen.name}, {title} ({chosen.why})"))
        if self._total or not self._is_as_stored() or self._lacks_projections():
            self._load()
        elif self._found is not None:
            self._commits = self._go_on(self._found)

    def _plan_in_words(self) -> str:
        backlog = f", {len(self._backlog)} to complete" if self._backlog else ""
        return f"{counted(len(self._work.pending), 'image')} to index{backlog}"

    def _lacks_projections(self) -> bool:
        return self._found is not None and lacks_projections(self._found, find_codec(self._recipe.settings.codec))

    def _is_as_stored(self) -> bool:
        """Say whether the index knows already all that it is to have."""
        if self._reader is None:
            return False
        stored, recipe = stored_recipe(self._reader, self._root), self._recipe
        encoders = [set(each.settings.encoders or {}) for each in (stored, recipe)]
        return stored.targets == recipe.targets and stored.attention == recipe.attention and encoders[0] == encoders[1]

    def _load(self) -> None:
        """Load the models, and note in the index what it is to have from now on before any of it is computed."""
        recipe = self._recipe
        self._models = load_models(recipe.settings, recipe.targets, self._run.device, self._run.offline)
        self._run = replace(self._run, batch_size=batch_size(recipe.settings, self._run))
        fingerprint = self._models.fingerprint()
        generation = self._found or Generation(0, fingerprint, recipe.to_json(), (), (), ())
        is_new = self._reader is None or not self._is_as_stored()
        grown = replace(
            generation,
            fingerprint=grown_fingerprint(generation.fingerprint, fingerprint, self._root),
            settings=recipe.to_json() if is_new else generation.settings,
            encoders=tuple(dict.fromkeys((*generation.encoders, *fingerprint["encoders"]))),
            modes=tuple(recipe.targets),
        )
        self._check_room()
        if self._total:
            self._pipeline = Pipeline.begin(self._models, self._run, self._clock)
        if is_new or self._lacks_projections():
            # For a new index this is an empty one. Since every later generation has a higher number, a lost CURRENT
            # is never taken for that of a new one.
            grown = commit(self._layout, with_projections(self._layout, grown, self._models), CREATED_BY)
        self._commits = self._go_on(grown)
        self._emit(BuildEvent("loaded"))

    def _check_room(self) -> None:
        if self._total:
            load = Workload(len(self._work.pending), self._recipe.wanted.modes, self._backlog)
            estimate = estimate_workload(self._models, self._recipe.settings, self._run, self._root, load)
            self._emit(BuildEvent("estimate", total=self._total, estimate=estimate))
            check_estimate(estimate, self._root)

    def _go_on(self, generation: Generation) -> SegmentCommitter:
        codec = self._recipe.settings.codec
        return SegmentCommitter(
            self._layout, generation, codec, self._run, self._sources, self._clock, self._tell_commit
        )

    def run(self) -> None:
        """Commit what needs no computing, then all that is pending, then what items lack."""
        self._commit_moves()
        if self._pipeline is None:
            return
        if self._work.pending:
            leaves_room = self._commits.leaves_room
            computed = self._pipeline.run(self._work.pending, self._recipe.wanted, _usable, leaves_room)
            self._commits.run(computed, self._add, self._grow)
        if self._backlog:
            # Read again: files may have been renamed or have changed since the backlog was counted.
            reader = IndexReader(self._root)
            self._backlog = find_missing(reader, self._recipe.wanted, self._recipe.targets)
            filler = Filler(self._pipeline, self._commits, self._tell_filled)
            self._filled = filler.run(reader, self._backlog)

    def _commit_moves(self) -> None:
        """Commit renamed, touched and vanished files: their vectors and tensors stay, or no longer count."""
        work = self._work
        if not work.moved and not work.vanished:
            return
        self._commits.generation = replace(self._commits.generation, tombstones=self._buried(work.vanished))
        if work.moved:
            self._commits.open().move(work.moved)
            self._commits.finish(self._grow)
        else:
            self._commits.store(self._commits.generation)

    def _buried(self, ids: Iterable[int]) -> tuple[int, ...]:
        return tuple(sorted({*self._commits.generation.tombstones, *ids}))

    def _add(self, computed: tuple[FileBatch, InFlightBatch], segment: SegmentWriter) -> None:
        batch, pending = computed
        both = zip(batch.files, batch.outcomes, strict=True)
        rejects = [_reject(path, outcome) for path, outcome in both if isinstance(outcome, Failure)]
        facts = [outcome[0] for outcome in batch.outcomes if not isinstance(outcome, Failure)]
        items = [item_of(f, n) for n, f in enumerate(facts, self._commits.generation.next_id + segment.items)]
        with self._clock.working(WRITE, len(items)):
            stored = pending.stored()
            segment.append(items, rejects, stored.vectors, stored.tensors)
        self._added += len(items)
        self._done += len(batch.files)
        self._rejected += len(rejects)
        self._tell_batch()

    def _grow(self, segment: SegmentWriter, record: SegmentRecord) -> Generation:
        replaced = [self._work.replaced[uri] for uri in segment.uris if uri in self._work.replaced]
        broken = [self._work.replaced[uri] for uri in segment.rejected_uris if uri in self._work.replaced]
        generation = self._commits.generation
        self._replaced += len(replaced)
        return replace(
            generation,
            segments=(*generation.segments, record),
            tombstones=self._buried([*replaced, *broken]),
            next_id=generation.next_id + record.rows,
        )

    def _tell_commit(self) -> None:
        self._emit(BuildEvent("committed", "", self._done, self._total, self._rejected))

    def _tell_filled(self, count: int) -> None:
        self._done += count
        self._tell_batch()

    def _tell_batch(self) -> None:
        done = (self._done, self._total, self._rejected)
        self._emit(BuildEvent("batch", "", *done, speeds=self._clock.speeds()))

    def report(self, unreadable: Sequence[str]) -> BuildReport:
        """Train the coarse stage where the index has grown large enough for that, and sum up what is in it now."""
        reader = IndexReader(self._root)
        train_where_due(
            reader.vector_reader, lambda encoder: self._emit(BuildEvent("training", encoder, total=len(reader)))
        )
        return BuildReport(
            index=index_name(self._root),
            model=self._recipe.settings.model,
            modes=reader.generation.modes,
            items=len(reader),
            added=self._added,
            replaced=self._replaced,
            moved=len(self._work.moved),
            removed=len(self._work.vanished),
            unchanged=self._work.unchanged,
            rejected=dict(Counter(reject.reason for reject in reader.rejects())),
            passed_over=self._listing.passed_over,
            unreadable_folders=tuple(unreadable),
            completed=self._filled.items,
            incomplete=self._filled.unavailable,
            coverage=coverage(reader),
            speeds=self._clock.speeds(),
        )


def _remove_if_empty(layout: Layout) -> None:
    """Remove the folder that a failed build made for its lock, unless there is anything in it."""
    if not was_committed(layout) and layout.root.is_dir() and [p.name for p in layout.root.iterdir()] == ["LOCK"]:
        layout.lock.unlink(missing_ok=True)
        layout.root.rmdir()


def _usable(batch: FileBatch) -> list[ModelInputs]:
    return [outcome[1] for outcome in batch.outcomes if not isinstance(outcome, Failure)]


def _reject(path: Path, failure: Failure) -> Reject:
    return Reject(uri_of(path), failure.size, failure.mtime_ns, failure.error.reason, failure.error.detail)
