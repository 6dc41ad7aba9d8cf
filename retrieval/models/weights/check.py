"""Check the weights of a model and of its encoders whole: each file is there, and is neither cut off nor a pointer."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from retrieval.errors import UsageError
from retrieval.models.descriptions import Description
from retrieval.models.encoders import EMBEDDERS, embedder_of
from retrieval.models.references import ATTENTION, POOLED, parse_reference
from retrieval.models.registry import EXTRACTORS, IP_ADAPTER, VAE, default_encoders, describe_extractor
from retrieval.models.weights import hub
from retrieval.models.weights.finding import in_folder, source_of
from retrieval.models.weights.parts import Choice, Find, choose_files
from retrieval.models.weights.reading import find_damage

FileState = Literal["ok", "missing", "damaged"]
ALONE: dict[str, Description] = {**EMBEDDERS, IP_ADAPTER.name: IP_ADAPTER, VAE.name: VAE}
"""Everything but attention models whose weights can be asked for by name."""

DITS = ("dit-256", "dit-512")
CHECKPOINTS = ("*.safetensors", "*.pt")  # the original form of DiT, a single file


@dataclass(frozen=True)
class WeightFile:
    """One file that a model needs, and how it is."""

    model: str  # the model, encoder or neighbour that reads it
    name: str  # inside the repository; several with "or" between them if any will do
    state: FileState
    size: int  # bytes; 0 if it is missing
    detail: str  # the damage, or the place where it was looked for

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def needed_by(name: str) -> list[tuple[Description, str]]:
    """Return everything that a model needs from the hub, with its place in relation to the model's local folder.

    Args:
        name: an attention model, with which come the repositories beside it and its default encoders; an encoder; or
            such a repository.

    Raises:
        UsageError: an unknown name; the message lists the known ones.
    """
    if name in ALONE:
        return [(ALONE[name], "")] if ALONE[name].source else []
    reference = parse_reference(name)
    if reference is not None and reference.prefix == POOLED:
        return [(embedder_of(reference), "")]
    if reference is None and name not in EXTRACTORS:
        known = ", ".join([*EXTRACTORS, *ALONE])
        raise UsageError(f"unknown model '{name}'; known: {known}, {POOLED}OWNER/NAME, {ATTENTION}OWNER/NAME")
    model = describe_extractor(name)
    encoders = [
        (encoder, "" if encoder.source == model.source else f"../{encoder.name}") for encoder in default_encoders(name)
    ]
    needed = [(model, ""), *((each, each.local) for each in model.beside), *encoders]
    by_repository = {(each.repo, each.revision): (each, place) for each, place in reversed(needed) if each.source}
    return list(reversed(by_repository.values()))


def check_weights(needed: Iterable[tuple[Description, str]], folder: Path | None = None) -> list[WeightFile]:
    """Return the state of every file of what a model needs.

    Headers and sizes of the files are read, not their numbers, so it takes a moment.

    Args:
        needed: see :func:`needed_by`.
        folder: the model's local folder; None: the hub's cache.
    """
    return [
        file
        for description, place in needed
        for file in _check(description, None if folder is None else folder / place)
    ]


def _check(description: Description, folder: Path | None) -> Iterable[WeightFile]:
    source = source_of(description)
    source = replace(source, revision=hub.known_commit(source) or source.revision)
    root = hub.snapshot_folder(source) if folder is None else folder
    if folder is not None and (checkpoints := _checkpoints(description, folder)):
        yield from (_state(description, root, path.name) for path in checkpoints)
        return

    def cached(name: str) -> Path | None:
        return hub.cached_file(source, name)

    find: Find = cached if folder is None else in_folder(folder)
    for part in source.parts:
        choice: Choice = choose_files(part, find, local=folder is not None)
        yield from (_state(description, root, name) for name in choice.names)
        yield from (WeightFile(description.name, name, "missing", 0, f"not in {root}") for name in choice.missing)


def _checkpoints(description: Description, folder: Path) -> list[Path]:
    """Return the original checkpoints of DiT in ``folder``, where diffusers' form of it is absent."""
    if description.name not in DITS or (folder / "transformer").is_dir():
        return []
    return sorted(path for pattern in CHECKPOINTS for path in folder.glob(pattern))


def _state(description: Description, root: Path, name: str) -> WeightFile:
    path = root / name
    damage = find_damage(path)
    size = path.stat().st_size
    return WeightFile(description.name, name, "damaged" if damage else "ok", size, f"{path} {damage}" if damage else "")
