"""The recipe of an index: resolved settings and targets, chosen for a new index or read from an existing one."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import Any

from index_store.codecs import Codec, find_codec
from index_store.reader import IndexReader
from retrieval.encoding.fingerprint import check_shape, differences
from retrieval.encoding.sharing import stored_names
from retrieval.errors import IndexIncompatibleError
from retrieval.models.defaults import ChosenModel, choose_model, resolve
from retrieval.models.modes import Mode, Outputs, Target
from retrieval.models.pinning import pinned_choices
from retrieval.models.registry import choose_modes, describe_extractor
from retrieval.settings import BuildSettings, ModelChoices, ModelSettings
from retrieval.types import AttentionRule

ATTENTION = "attention"  # the key of the attention rule among the settings of an index


@dataclass(frozen=True)
class Recipe:
    """Everything that a build needs to know before it loads models."""

    settings: ModelSettings  # resolved: no field is "auto" or left to the model
    targets: Mapping[str, Target]  # by mode
    tensors: Mapping[str, str]  # by mode: the name that its tensors are stored under
    chosen: ChosenModel
    attention: AttentionRule = "eager"

    @property
    def wanted(self) -> Outputs:
        """The outputs that every item gets: all vectors, and all tensors unless searches compute these."""
        return Outputs(self.names_of(self.targets) if self.attention == "eager" else (), self.encoders)

    def names_of(self, modes: Iterable[str]) -> tuple[str, ...]:
        """Return the names that the tensors of ``modes`` are stored under, each once; every name is one of a mode."""
        return tuple(dict.fromkeys(self.tensors[mode] for mode in modes))

    def modes_of(self, names: Collection[str]) -> tuple[str, ...]:
        """Return the modes whose tensors are stored under ``names``."""
        return tuple(mode for mode, name in self.tensors.items() if name in names)

    @property
    def encoders(self) -> tuple[str, ...]:
        """The names of the encoders."""
        return tuple(self.settings.encoders or {})

    def to_json(self) -> dict[str, Any]:
        """Return plain values, as an index stores them."""
        return {**self.settings.to_json(), ATTENTION: self.attention}


def new_recipe(modes: Sequence[str] | None, choices: ModelChoices, run: BuildSettings) -> Recipe:
    """Return the recipe of a new index.

    Raises:
        UsageError: an unknown model, mode, codec or encoder, or an encoder without a folder.
    """
    choices = pinned_choices(choices, run.offline)
    asked = ModelSettings(**choices)
    if asked.codec is not None:
        find_codec(asked.codec)
    chosen = choose_model(asked, run.device, run.offline)
    description = describe_extractor(chosen.name)
    wanted = choose_modes(description, description.default_modes if modes is None else modes)
    used, chosen = _without_unused(choices, chosen)
    settings = resolve(ModelSettings(**{**used, "model": chosen.name}), wanted, run.device)
    targets = {mode.name: mode.target for mode in wanted}
    return Recipe(settings, targets, stored_names(targets, codec_of(settings)), chosen, run.attention or "eager")


def codec_of(settings: ModelSettings) -> Codec:
    """Return the codec of resolved settings."""
    assert settings.codec is not None
    return find_codec(settings.codec)


def _without_unused(choices: ModelChoices, chosen: ChosenModel) -> tuple[dict[str, Any], ChosenModel]:
    """Drop the choices that the model does not use, so that the index does not store them; note them in ``why``."""
    unused = describe_extractor(chosen.name).unused
    used = {name: value for name, value in choices.items() if name not in unused}
    names = ", ".join(name.replace("_", " ") for name in choices if name in unused)
    return used, replace(chosen, why=f"{chosen.why}; it does not use {names}") if names else chosen


def stored_recipe(reader: IndexReader, root: Path) -> Recipe:
    """Return the recipe that the index was made with.

    Raises:
        IndexIncompatibleError: this version can't read the settings of the index.
    """
    generation = reader.generation
    try:
        check_shape(generation.fingerprint)
        settings = _of_today(ModelSettings.from_json(generation.settings), generation.fingerprint["model"])
        targets = {mode: Target.from_json(values) for mode, values in generation.fingerprint["modes"].items()}
        if not isinstance(settings.model, str) or not all(isinstance(mode, str) for mode in targets):
            raise TypeError("the model or a mode has no name")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise IndexIncompatibleError(
            f"{root} has settings that this version can't read ({error}); {generation.created_by} wrote them"
        ) from error
    rule = generation.settings.get(ATTENTION, "eager")
    tensors = {mode: generation.stored_as(mode) for mode in targets}
    return Recipe(settings, targets, tensors, ChosenModel(settings.model, "the index was made with it"), rule)


def _of_today(settings: ModelSettings, model: Mapping[str, Any]) -> ModelSettings:
    """Give the model cells its name of today: until November 2026 it was called mini."""
    return replace(settings, model="cells") if settings.model == "mini" and "cells" in model else settings


def continued_recipe(
    reader: IndexReader, root: Path, modes: Sequence[str] | None, choices: ModelChoices, run: BuildSettings
) -> Recipe:
    """Return the recipe of an existing index, with the modes and encoders that the caller adds.

    Raises:
        IndexIncompatibleError: a choice differs from the settings of the index; the message shows both values.
    """
    stored = stored_recipe(reader, root)
    choices = pinned_choices(choices, run.offline, stored.settings)
    if choices.get("codec") is not None:
        find_codec(str(choices["codec"]))
    description = describe_extractor(stored.settings.model)
    wanted = stored.targets if modes is None else modes
    added = [mode for mode in choose_modes(description, wanted) if mode.name not in stored.targets]
    targets = {**stored.targets, **{mode.name: mode.target for mode in added}}
    given, chosen = _without_unused(choices, stored.chosen)
    given = {key: value for key, value in given.items() if (key, value) not in (("model", "auto"), ("codec", None))}
    given["encoders"] = _grown_encoders(stored.settings.encoders or {}, choices, added, root)
    asked = ModelSettings(**{**stored.settings.to_json(), **given})
    asked = resolve(asked, choose_modes(description, targets), run.device)
    _check_same(stored.settings, asked, root)
    attention = run.attention or stored.attention
    tensors = stored_names(targets, codec_of(asked), stored.tensors)
    return replace(stored, settings=asked, targets=targets, tensors=tensors, attention=attention, chosen=chosen)


def _check_same(stored: ModelSettings, asked: ModelSettings, root: Path) -> None:
    """Raise IndexIncompatibleError if settings differ. Folders of weights may: the fingerprint compares the weights."""
    found = differences(stored.to_json(), asked.to_json())
    found = [line for line in found if not line.startswith(("weights:", "encoders."))]
    if found:
        raise _made_otherwise(root, "; ".join(found))


def _grown_encoders(
    stored: Mapping[str, str | None], choices: ModelChoices, added: Sequence[Mode], root: Path
) -> dict[str, str | None]:
    """Return the folders by encoder: those of the index, those asked for, and those that added modes name.

    An index without encoders stays without when a mode is added.
    """
    asked = choices.get("encoders")
    if asked is not None and stored and not asked:
        raise _made_otherwise(root, f"encoders: {', '.join(stored)} in the index, none asked for")
    grown = {**stored, **{name: folder or stored.get(name) for name, folder in (asked or {}).items()}}
    named = [encoder for mode in added for encoder in mode.encoders] if grown else []
    return {**grown, **{name: None for name in named if name not in grown}}


def _made_otherwise(root: Path, listed: str) -> IndexIncompatibleError:
    return IndexIncompatibleError(f"{root} was made with other settings ({listed})", advice="keep-settings")


def lacks_modes(reader: IndexReader, missing: Sequence[str]) -> IndexIncompatibleError:
    """Return the error for modes that an index was not built for; its facts say how to add them."""
    root, sources = reader.layout.root, " ".join(quote(source) for source in reader.sources.places)
    return IndexIncompatibleError(
        f"{root} was built for {', '.join(reader.generation.modes)}, not for {', '.join(missing)}",
        advice="add-modes",
        sources=sources,
        modes=",".join(missing),
        index=quote(str(root)),
    )
