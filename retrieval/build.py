"""Build or update an index: plan, compute batch after batch, commit segment after segment.

A build can be stopped at any moment, by Ctrl-C or by a kill. What was committed stays, the next build goes on from
there, and computes the same batches, and so the same numbers, as one that was never stopped.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

from index_store.catalog import Item, Reject
from index_store.codecs import find_codec
from index_store.layout import Layout
from index_store.lock import writer_lock
from index_store.manifest import Generation, commit
from index_store.reader import IndexReader
from index_store.segment import SegmentWriter, clear_uncommitted, drop_expired
from retrieval.backbones import describe_extractor
from retrieval.discovery import Listing
from retrieval.errors import NoSpaceError
from retrieval.estimate import check_estimate, estimate_build
from retrieval.events import BuildEvent, BuildReport
from retrieval.images import FileFacts
from retrieval.ingest import Failure, FileBatch, read_batches
from retrieval.models import Models, Stored, load_models
from retrieval.pace import batch_size, workers
from retrieval.plan import Recipe, check_fingerprint, continued_recipe, new_recipe
from retrieval.settings import BuildSettings, ModelChoices
from retrieval.stored import lacks_projections, with_projections
from retrieval.version import CREATED_BY
from retrieval.work import Work, find_sources, plan_work, uri_of


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
        modes: kinds of likeness to cache tensors for; by default the index's own, or style, instance, semantic.
        run: device, batch size and the like; nothing there changes a score.
        on_event: told of every step; may raise KeyboardInterrupt to stop the build.
        **choices: fields of :class:`retrieval.settings.ModelSettings`; those left out are the index's own.

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
        self._sources, self._listing, self._run, self._emit = sources, listing, run, on_event
        self._reader = IndexReader(root) if was_committed(self._layout) else None
        found = None if self._reader is None else drop_expired(self._layout, self._reader.generation)
        clear_uncommitted(self._layout, found)
        self._work: Work = plan_work(listing, sources, self._reader, run.retry_rejects)
        self._added = self._replaced = self._done = self._rejected = 0
        self._segment: SegmentWriter | None = None
        self._opened = 0.0
        self._recipe: Recipe
        self._models: Models
        self._generation: Generation
        if found is not None:
            self._generation = found

    def prepare(self, fresh: Recipe | None, modes: Sequence[str] | None, choices: ModelChoices) -> None:
        """Settle what is computed, and load the models where there is anything to compute."""
        if self._reader is None:
            self._recipe = fresh or new_recipe(modes, choices, self._run)
        else:
            self._recipe = continued_recipe(self._reader, self._root, modes, choices, self._run)
        chosen = self._recipe.chosen
        self._emit(BuildEvent("planned", total=len(self._work.pending)))
        title = describe_extractor(chosen.name).title
        self._emit(BuildEvent("model", f"{chosen.name}, {title} ({chosen.why})"))
        settings, device = self._recipe.settings, self._run.device
        lacking = self._reader is not None and lacks_projections(self._generation, find_codec(settings.codec))
        if not self._work.pending and not lacking:
            return
        self._models = load_models(settings, self._recipe.targets, device, self._run.offline)
        fingerprint = self._models.fingerprint()
        if self._work.pending:
            estimate = estimate_build(self._models, settings, self._run, self._root, len(self._work.pending))
            self._emit(BuildEvent("estimate", total=estimate.images, estimate=estimate))
            check_estimate(estimate, self._root)
        if self._reader is None:
            self._generation = self._first_generation(fingerprint)
        else:
            check_fingerprint(self._generation.fingerprint, fingerprint, self._root)
        if lacking:
            self._store(with_projections(self._layout, self._generation, self._models))
        self._emit(BuildEvent("loaded"))

    def _first_generation(self, fingerprint: dict[str, Any]) -> Generation:
        """Commit an empty index. Since every later one has a higher number, a lost CURRENT is never taken for new."""
        empty = Generation(
            number=0,
            fingerprint=fingerprint,
            settings=self._recipe.settings.to_json(),
            sources=(),
            encoders=tuple(fingerprint["encoders"]),
            modes=tuple(self._recipe.targets),
        )
        return commit(self._layout, with_projections(self._layout, empty, self._models), CREATED_BY)

    def run(self) -> None:
        """Commit what needs no computing, then compute and commit everything that is pending."""
        self._commit_moves()
        if not self._work.pending:
            return
        batches = read_batches(
            self._work.pending,
            batch_size(self._recipe.settings.model, self._run),
            workers(self._run),
            self._models.rules,
            self._models.prepare,
        )
        try:
            for batch in batches:
                segment = self._open_segment()
                self._add(batch, segment)
                overdue = time.monotonic() - self._opened >= self._run.commit_seconds
                if len(segment) >= self._run.segment_rows or overdue:
                    self._commit()
            self._commit()
        except NoSpaceError:
            if self._segment is not None:
                self._segment.discard()  # what can't be finished only takes room
            raise
        except BaseException:
            self._commit()
            raise
        finally:
            batches.close()

    def _commit_moves(self) -> None:
        """Commit renamed, touched and vanished files: their vectors and tensors stay, or no longer count."""
        work = self._work
        if not work.moved and not work.vanished:
            return
        self._generation = replace(self._generation, tombstones=self._buried(work.vanished))
        if work.moved:
            self._open_segment().move(work.moved)
            self._commit()
        else:
            self._store(self._generation)

    def _buried(self, ids: Iterable[int]) -> tuple[int, ...]:
        return tuple(sorted({*self._generation.tombstones, *ids}))

    def _open_segment(self) -> SegmentWriter:
        if self._segment is None:
            name, codec = f"{self._generation.number + 1:06d}", self._recipe.settings.codec
            self._segment = SegmentWriter(self._layout, name, codec)
            self._opened = time.monotonic()
        return self._segment

    def _add(self, batch: FileBatch, segment: SegmentWriter) -> None:
        good = [outcome for outcome in batch.outcomes if not isinstance(outcome, Failure)]
        both = zip(batch.files, batch.outcomes, strict=True)
        rejects = [_reject(path, outcome) for path, outcome in both if isinstance(outcome, Failure)]
        items = self._items([facts for facts, _ in good], self._generation.next_id + segment.items)
        stored = self._models.encode_stored([prepared for _, prepared in good]) if good else Stored({}, {})
        segment.append(items, rejects, stored.vectors, stored.tensors)
        self._added += len(items)
        self._done += len(batch.files)
        self._rejected += len(rejects)
        self._emit(BuildEvent("batch", "", self._done, len(self._work.pending), self._rejected))

    def _items(self, facts: Sequence[FileFacts], first_id: int) -> list[Item]:
        return [
            Item(first_id + n, uri_of(f.path), f.size, f.mtime_ns, f.sha256, f.width, f.height)
            for n, f in enumerate(facts)
        ]

    def _commit(self) -> None:
        """Commit the open segment, if any. Where this was interrupted, it can be called again and goes on."""
        segment = self._segment
        if segment is None:
            return
        if not segment.is_whole:
            segment.discard()
            self._segment = None
            return
        record = segment.finish()
        replaced = [self._work.replaced[uri] for uri in segment.uris if uri in self._work.replaced]
        broken = [self._work.replaced[uri] for uri in segment.rejected_uris if uri in self._work.replaced]
        grown = replace(
            self._generation,
            segments=(*self._generation.segments, record),
            tombstones=self._buried([*replaced, *broken]),
            next_id=self._generation.next_id + record.rows,
        )
        self._store(grown)
        self._segment = None
        self._replaced += len(replaced)
        self._emit(BuildEvent("committed", "", self._done, len(self._work.pending), self._rejected))

    def _store(self, generation: Generation) -> None:
        sources = {*generation.sources, *(uri_of(path.absolute()) for path in self._sources)}
        self._generation = commit(self._layout, replace(generation, sources=tuple(sorted(sources))), CREATED_BY)

    def report(self, unreadable: Sequence[str]) -> BuildReport:
        """Train the coarse stage where the index has grown large enough for that, and sum up what is in it now."""
        reader = IndexReader(self._root)
        reader.train_where_due(lambda encoder: self._emit(BuildEvent("training", encoder, total=len(reader))))
        return BuildReport(
            index=str(self._root),
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
        )


def was_committed(layout: Layout) -> bool:
    """Say whether there is an index to go on with: not where the very first, empty commit was cut short."""
    later = [path for path in layout.generations.glob("[0-9]*.json") if path.name != layout.generation(1).name]
    return layout.current.exists() or bool(later)


def _remove_if_empty(layout: Layout) -> None:
    """Remove the folder that a failed build made for its lock, unless there is anything in it."""
    if not was_committed(layout) and layout.root.is_dir() and [p.name for p in layout.root.iterdir()] == ["LOCK"]:
        layout.lock.unlink(missing_ok=True)
        layout.root.rmdir()


def _reject(path: Path, failure: Failure) -> Reject:
    return Reject(uri_of(path), failure.size, failure.mtime_ns, failure.error.reason, failure.error.detail)
