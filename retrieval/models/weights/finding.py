"""Find all files of a model: in a local folder, in the hub's cache, or on the hub, from where they are downloaded."""

import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from retrieval.errors import ModelError
from retrieval.models.descriptions import Description
from retrieval.models.repositories import Repository
from retrieval.models.weights import hub
from retrieval.models.weights.digest import weights_digest
from retrieval.models.weights.parts import Choice, Find, FoundPart, Part, assemble, choose_files
from retrieval.progress import Cancellation, OnProgress, Progress, ignore_progress

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Weights:
    """The found parts of a model, by their folder inside the repository."""

    root: Path
    parts: tuple[FoundPart, ...]

    def __getitem__(self, folder: str) -> FoundPart:
        [found] = [found for found in self.parts if found.part.folder == folder]
        return found

    def digest(self) -> str:
        """Return one SHA-256 over the tensors of all parts; see :mod:`retrieval.models.weights.digest`."""
        return weights_digest(self.parts)


def find_weights(description: Description, folder: Path | None, offline: bool) -> Weights:
    """Find the files of a model, and download those of the pinned revision that are not in the hub's cache.

    Args:
        description: names the repository, its revision and its parts.
        folder: a local folder of weights, in the repository's layout; None: the hub.
        offline: use only the hub's cache.

    Raises:
        ModelError: files are missing, and can't be downloaded.
    """
    if folder is not None:
        return find_local(description, folder)
    cached = find_cached(description)
    if cached is not None:
        return cached
    if offline or is_offline():
        raise _missing(description, missing_in_cache(description), "they are not in the local hub cache (offline)")
    description = with_commit(description, offline)
    _LOG.info("%s: taking weights of %s at %s from the hub", description.name, description.repo, description.revision)
    plan = plan_download(description)
    fetch([plan])
    return plan.found()


def with_commit(description: Description, offline: bool) -> Description:
    """Return the description at a commit: its own, else the one that the hub's cache knows, else the newest.

    Raises:
        ModelError: no commit is known, and the hub can't be asked.
    """
    source = source_of(description)
    commit = hub.known_commit(source)
    if commit is None and (offline or is_offline()):
        raise _missing(description, missing_in_cache(description), "the local hub cache knows no commit (offline)")
    try:
        return _at(description, commit or hub.ask_commit(source))
    except hub.HubError as error:
        raise _missing(description, missing_in_cache(description), str(error)) from error


def _at(description: Description, commit: str) -> Description:
    return replace(description, source=replace(source_of(description), revision=commit))


def find_local(description: Description, folder: Path, parts: tuple[Part, ...] | None = None) -> Weights:
    """Find the files of ``parts``, by default all of the model's, in a local folder.

    Raises:
        ModelError: the folder does not exist, or files are missing; the message lists them.
    """
    if not folder.is_dir():
        raise ModelError(f"{description.name}: the weights folder {folder} does not exist")
    parts = description.parts if parts is None else parts
    chosen = [choose_files(part, in_folder(folder), local=True) for part in parts]
    missing = [
        name
        for part, choice in zip(parts, chosen, strict=True)
        for name in (choice.missing if (folder / part.folder).is_dir() else [part.folder])
    ]
    if missing:
        raise ModelError(f"{folder} holds no weights of {description.name}: {', '.join(missing)} missing")
    return _assembled(parts, folder, chosen)


def find_cached(description: Description) -> Weights | None:
    """Find the files of a model in the hub's cache; None unless every file that will be loaded is there."""
    source = _known(description)
    chosen = [choose_files(part, _in_cache(source), local=False) for part in source.parts]
    if any(choice.missing for choice in chosen):
        return None
    return _assembled(source.parts, hub.snapshot_folder(source), chosen)


def are_cached(descriptions: Iterable[Description]) -> bool:
    """Return whether every file of these models, and of the repositories beside them, is in the hub's cache."""
    return all(
        find_cached(each) is not None for one in descriptions for each in (one, *one.beside) if each.source is not None
    )


def missing_in_cache(description: Description) -> list[str]:
    """Return the names of the files that are wanted and not in the hub's cache."""
    source = _known(description)
    return [name for part in source.parts for name in choose_files(part, _in_cache(source), local=False).missing]


@dataclass(frozen=True)
class Download:
    """The files of a model on the hub that will be loaded, those that are in the cache already included."""

    description: Description
    chosen: tuple[Choice, ...]
    files: tuple[hub.RemoteFile, ...]

    @property
    def bytes_left(self) -> int:
        """Bytes that are not in the cache."""
        return sum(file.size for file in self.files if file.cached is None)

    def found(self) -> Weights:
        """Return the files in the cache, after the download."""
        source = source_of(self.description)
        return _assembled(source.parts, hub.snapshot_folder(source), self.chosen)


def plan_download(description: Description) -> Download:
    """Ask the hub which files the commit has, before anything large is downloaded; a branch is its newest commit.

    Raises:
        ModelError: the commit does not have the files, or the hub can't be reached.
    """
    try:
        description = _at(description, hub.ask_commit(source_of(description)))
    except hub.HubError as error:
        raise _missing(description, missing_in_cache(description), str(error)) from error
    source = source_of(description)
    stated: dict[str, hub.RemoteFile] = {}

    def find(name: str) -> Path | None:
        file = hub.ask(source, name)
        if file is None:
            return None
        if file.cached is None and ".index." in name:  # it names the files to download
            file = hub.RemoteFile(name, file.size, hub.download(source, name))
        stated[name] = file
        return file.cached or Path(name)

    def choose(part: Part) -> Choice:
        cached = choose_files(part, _in_cache(source), local=False)
        if cached.missing:
            return choose_files(part, find, local=False)
        for name in cached.names:
            find(name)
        return cached

    try:
        chosen = tuple(choose(part) for part in source.parts)
    except hub.HubError as error:
        raise _missing(description, missing_in_cache(description), str(error)) from error
    if missing := [name for choice in chosen for name in choice.missing]:
        raise _missing(description, missing, "the hub does not have them at this revision")
    names = dict.fromkeys(name for choice in chosen for name in choice.names)
    return Download(description, chosen, tuple(stated[name] for name in names))


def fetch(
    plans: Sequence[Download], on_progress: OnProgress = ignore_progress, cancel: Cancellation | None = None
) -> None:
    """Download the files of ``plans`` that are not in the hub's cache; the progress counts the bytes of all plans.

    Raises:
        NoSpaceError: the disk of the cache has less room than they need.
        ModelError: the hub can't be reached.
        CancelledError: the download was stopped; what is complete is kept.
    """
    hub.check_room(sum(plan.bytes_left for plan in plans))
    done, total = 0, sum(file.size for plan in plans for file in plan.files)
    for plan in plans:
        source, before = source_of(plan.description), done

        def tell(progress: Progress, before: int = before) -> None:
            on_progress(replace(progress, done=before + progress.done, total=total))

        try:
            hub.download_all(source, plan.files, ignore_progress if on_progress is ignore_progress else tell, cancel)
        except hub.HubError as error:
            raise _missing(plan.description, missing_in_cache(plan.description), str(error)) from error
        done += sum(file.size for file in plan.files)


def source_of(description: Description) -> Repository:
    """Return the repository of a model that has one."""
    assert description.source is not None
    return description.source


def _known(description: Description) -> Repository:
    """Return the repository at the commit that the hub's cache knows, if it knows one."""
    source = source_of(description)
    return replace(source, revision=hub.known_commit(source) or source.revision)


def is_offline() -> bool:
    """Return whether the hub's own environment variables forbid network access."""
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    return any(os.environ.get(name, "").lower() in {"1", "true", "yes", "on"} for name in names)


def in_folder(folder: Path) -> Find:
    """Return the function that finds files in a local folder."""

    def find(name: str) -> Path | None:
        path = folder / name
        return path if path.is_file() else None

    return find


def _in_cache(source: Repository) -> Find:
    def find(name: str) -> Path | None:
        return hub.cached_file(source, name)

    return find


def _assembled(parts: tuple[Part, ...], root: Path, chosen: Sequence[Choice]) -> Weights:
    return Weights(root, tuple(assemble(part, root, choice) for part, choice in zip(parts, chosen, strict=True)))


def _missing(description: Description, missing: list[str], why: str) -> ModelError:
    """Return the error that says which files of which revision are wanted, and which of them are missing."""
    wanted = [name for part in description.parts for name in part.wanted()]
    size = f"about {description.download_mb} MB" if description.download_mb else "them"
    return ModelError(
        f"{description.name}: weights of {description.repo} are needed and {why}; missing at revision "
        f"{description.revision}: {', '.join(missing)} ({len(missing)} of {len(wanted)} files)",
        advice="get-weights",
        size=size,
        model=description.name,
        repo=description.repo,
        revision=description.revision,
        files=" ".join(name.split(" or ")[0] for name in missing),
    )
