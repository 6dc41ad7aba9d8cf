"""Turn names of repositories into names of commits, so that an index means the same when a branch moves."""

from dataclasses import replace
from typing import Any, cast

from retrieval.errors import UsageError
from retrieval.models.encoders import EMBEDDERS, at_commit
from retrieval.models.references import ATTENTION, Reference, is_commit, parse_reference
from retrieval.models.registry import describe_embedder, describe_extractor
from retrieval.models.weights.finding import with_commit
from retrieval.settings import ModelChoices, ModelSettings


def pinned_choices(choices: ModelChoices, offline: bool, stored: ModelSettings | None = None) -> ModelChoices:
    """Return the choices with every repository at a commit, and with folders in their own fields.

    Args:
        choices: names may be ``hf:OWNER/NAME``, with a branch or without, or ``hf:/path/to/folder``.
        offline: use only the commits that the hub's cache knows.
        stored: the settings of the index that exists; its commits stand for names without a revision.

    Raises:
        UsageError: a name that names no repository, or a folder named twice.
        ModelError: no commit is known, and the hub can't be asked.
    """
    known = stored or ModelSettings()
    changed: dict[str, Any] = dict(choices)
    model = choices.get("model")
    if model is not None and (reference := parse_reference(model)) is not None and reference.prefix == ATTENTION:
        if reference.folder is not None and choices.get("weights") is not None:
            raise UsageError(f"the folder of '{model}' is named twice: by the model and as its weights")
        changed["weights"] = str(reference.folder) if reference.folder else choices.get("weights")
        changed["model"] = _pinned(reference, changed["weights"] is not None, [known.model], offline)
        if changed["weights"] is None:
            del changed["weights"]
    encoders = choices.get("encoders")
    if encoders is not None:
        stated = [
            _pinned_encoder(name, folder, list(known.encoders or {}), offline) for name, folder in encoders.items()
        ]
        changed["encoders"] = dict(stated)
    return cast(ModelChoices, changed)


def _pinned_encoder(name: str, folder: str | None, known: list[str], offline: bool) -> tuple[str, str | None]:
    reference = parse_reference(name)
    if reference is None:
        return _pinned_name(name, folder, known, offline), folder
    folder = folder or (None if reference.folder is None else str(reference.folder))
    return _pinned(reference, folder is not None, known, offline), folder


def _pinned(reference: Reference, is_local: bool, known: list[str], offline: bool) -> str:
    for name in known:
        other = parse_reference(name)
        if other is not None and reference.means_same(other):
            return name
    if is_local or is_commit(reference.revision):
        return str(reference)
    describe = describe_extractor if reference.prefix == ATTENTION else describe_embedder
    return str(replace(reference, revision=with_commit(describe(str(reference)), offline).revision))


def _pinned_name(name: str, folder: str | None, known: list[str], offline: bool) -> str:
    """Return the name of an encoder in the table, with a commit where the table has none."""
    entry = EMBEDDERS.get(name)
    if entry is None or folder is not None or entry.source is None or is_commit(entry.revision):
        return name
    stored = next((other for other in known if other.partition("@")[0] == name), None)
    return stored or at_commit(entry, with_commit(entry, offline).revision).name
