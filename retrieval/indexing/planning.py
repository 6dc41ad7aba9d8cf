"""Plan a build or a fill: which files changed, which outputs are missing, and whether disk and memory are large enough.

A build, a fill and a dry run share these steps. Nothing here writes to the index.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from index_store.catalog_files.sources import Source, Sources
from index_store.layout import Layout
from index_store.locate import was_committed
from index_store.reader import IndexReader
from retrieval.encoding.batches import batch_size
from retrieval.encoding.fingerprint import grown_fingerprint
from retrieval.encoding.loaded_models import LoadedModels, LoadModels
from retrieval.encoding.recipe import Recipe, codec_of, continued_recipe, lacks_modes, new_recipe, stored_recipe
from retrieval.encoding.stored_tensors import misses_projections
from retrieval.images.discovery import Listing
from retrieval.indexing.changes import Changes, find_changes
from retrieval.indexing.estimate import Workload, estimate_workload, find_problem
from retrieval.indexing.missing import Missing, find_missing
from retrieval.indexing.reports import Estimate, OnBuildProgress
from retrieval.indexing.sources.known import with_revived
from retrieval.indexing.sources.places import sources_after, without_emptied
from retrieval.indexing.tally import ProgressTally
from retrieval.models.modes import Outputs
from retrieval.models.registry import choose_modes, describe_extractor
from retrieval.progress import ignore_progress
from retrieval.settings import BuildSettings, ModelChoices
from retrieval.text import counted

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """The work of a build or a fill."""

    root: Path
    reader: IndexReader | None  # None: a new index
    recipe: Recipe
    wanted: Outputs  # of every item; its modes are names that tensors are stored under
    changes: Changes = field(default_factory=Changes)
    sources: tuple[Source, ...] = ()  # of the index after a build
    missing: Missing = field(default_factory=Missing)

    @property
    def images(self) -> int:
        """Images to encode or to complete."""
        return len(self.changes.pending) + len(self.missing)

    @property
    def summary(self) -> str:
        """The number of images to index, to copy and to complete, in words."""
        complete = f", {len(self.missing)} to complete" if self.missing else ""
        copy = f", {len(self.changes.copies)} to copy" if self.changes.copies else ""
        return f"{counted(len(self.changes.pending), 'image')} to index{copy}{complete}"

    @property
    def model(self) -> str:
        """The model's name and title, and the reason for this model."""
        chosen = self.recipe.chosen
        return f"{chosen.name}, {describe_extractor(chosen.name).title} ({chosen.why})"

    @property
    def is_as_stored(self) -> bool:
        """Whether the index has the recipe's modes, encoders and attention rule already."""
        if self.reader is None:
            return False
        stored, recipe = stored_recipe(self.reader, self.root), self.recipe
        encoders = set(stored.encoders) == set(recipe.encoders)
        return stored.targets == recipe.targets and stored.attention == recipe.attention and encoders

    @property
    def misses_projections(self) -> bool:
        """Whether a repair removed a projection of the index, so that it must be written again."""
        codec = codec_of(self.recipe.settings)
        return self.reader is not None and misses_projections(self.reader.generation, codec)

    @property
    def needs_models(self) -> bool:
        """Whether there is anything to compute, or the models' fingerprint or projections are to be stored."""
        return bool(self.images) or not self.is_as_stored or self.misses_projections


def plan(
    root: Path,
    sources: Sequence[Path],
    listing: Listing,
    modes: Sequence[str] | None,
    choices: ModelChoices,
    run: BuildSettings,
    fresh: Recipe | None = None,
    on_progress: OnBuildProgress = ignore_progress,
) -> Plan:
    """Plan a build of the files in ``listing``, found below ``sources``; ``fresh`` is the recipe of a new index.

    ``on_progress`` is called while files are compared with the index by their bytes.

    Raises:
        UsageError: an unknown name.
        IndexIncompatibleError: a choice differs from the settings of the index.
        IndexCorruptError: a file of the index is damaged.
    """
    if not was_committed(Layout(root)):
        recipe = fresh or new_recipe(modes, choices, run)
        changes = find_changes(listing, sources, None, run, on_progress)
        return Plan(root, None, recipe, recipe.wanted, changes, sources_after((), sources, root))
    reader = IndexReader(root)
    recipe = continued_recipe(reader, root, modes, choices, run)
    changes = find_changes(listing, sources, reader, run, on_progress)
    if changes.revived:
        reader = IndexReader(root, with_revived(reader.generation, changes.revived))
    gone = {*changes.vanished, *changes.replaced.values()}
    missing = find_missing(reader, recipe.wanted, without=gone, moved=changes.moved)
    return Plan(root, reader, recipe, recipe.wanted, changes, _sources(reader, sources, changes), missing)


def _sources(reader: IndexReader, given: Sequence[Path], changes: Changes) -> tuple[Source, ...]:
    """Return the sources of the index after a build that was given these; those that were emptied leave."""
    after = sources_after(reader.sources.all, given, reader.layout.root)
    places, leaving = Sources(after), {*changes.vanished, *(item.id for item in changes.moved)}
    staying = ~np.isin(reader.ids, np.array(sorted(leaving), np.int64))
    kept = {*reader.catalog.source_ids[staying].tolist(), *(places.split(item.uri)[0] for item in changes.moved)}
    return without_emptied(after, kept)


def plan_fill(root: Path, modes: Sequence[str] | None, weights: str | None, run: BuildSettings) -> Plan:
    """Plan a fill of ``modes`` (all by default).

    Raises:
        UsageError: an unknown mode.
        IndexIncompatibleError: the index was not built for a mode.
        IndexCorruptError: a file of the index is damaged.
    """
    reader = IndexReader(root)
    choices: ModelChoices = {} if weights is None else {"weights": weights}
    recipe = continued_recipe(reader, root, None, choices, run)
    wanted = Outputs(recipe.names_of(_modes_to_fill(reader, recipe.settings.model, modes)), recipe.encoders)
    return Plan(root, reader, recipe, wanted, missing=find_missing(reader, wanted))


def _modes_to_fill(reader: IndexReader, model: str, asked: Sequence[str] | None) -> tuple[str, ...]:
    own = reader.generation.modes
    if asked is None:
        return own
    wanted = tuple(mode.name for mode in choose_modes(describe_extractor(model), asked))
    unknown = [mode for mode in wanted if mode not in own]
    if unknown:
        raise lacks_modes(reader, unknown)
    return wanted


@dataclass(frozen=True)
class Prepared:
    """The loaded models of a plan."""

    models: LoadedModels
    fingerprint: dict[str, Any]  # of the index, with the modes and encoders that the plan adds
    run: BuildSettings  # with the batch size settled


def prepare(plan: Plan, run: BuildSettings, load: LoadModels) -> Prepared:
    """Load the models of a plan.

    Raises:
        IndexIncompatibleError: they are not the models that the index was made with.
        ModelError, UsageError: see :func:`retrieval.encoding.loaded_models.load_models`.
    """
    settings = plan.recipe.settings
    models = load(settings, plan.recipe.targets, run.device, run.offline).limited(run.max_pixels)
    fingerprint = models.fingerprint()
    if plan.reader is not None:
        fingerprint = grown_fingerprint(plan.reader.generation.fingerprint, fingerprint, plan.root)
    prepared = Prepared(models, fingerprint, replace(run, batch_size=batch_size(settings, run)))
    LOG.info("loaded %s on %s for %s; batches of %s", settings.model, models.device, plan.root, prepared.run.batch_size)
    return prepared


def check_room(plan: Plan, prepared: Prepared, tally: ProgressTally) -> None:
    """Report the estimate of a plan, and refuse a plan that does not fit.

    Raises:
        NoSpaceError: the disk or the memory is too small; the advice says what would fit.
    """
    found = estimate(plan, prepared)
    tally.tell("estimate", estimate=found)
    if problem := find_problem(found, plan.root):
        raise problem


def estimate(plan: Plan, prepared: Prepared) -> Estimate:
    """Estimate the disk and memory that a plan needs."""
    recipe = plan.recipe
    workload = Workload(len(plan.changes.pending), recipe.modes_of(plan.wanted.modes), recipe.tensors, plan.missing)
    return estimate_workload(prepared.models, plan.recipe.settings, prepared.run, plan.root, workload)
