"""Decide what an index is made with: the recipe of a new one, or the one that an existing index must go on with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from index_store.codecs import find_codec
from index_store.reader import IndexReader
from retrieval.backbones import describe_extractor
from retrieval.errors import IndexIncompatibleError
from retrieval.models import ChosenModel, choose_model, differences, resolve
from retrieval.modes import Target, choose_modes
from retrieval.settings import BuildSettings, ModelChoices, ModelSettings


@dataclass(frozen=True)
class Recipe:
    """What a build computes: resolved settings and the target of every mode."""

    settings: ModelSettings
    targets: Mapping[str, Target]
    chosen: ChosenModel


def new_recipe(modes: Sequence[str] | None, choices: ModelChoices, run: BuildSettings) -> Recipe:
    """Return the recipe of a new index.

    Raises:
        UsageError: an unknown model, mode, codec or encoder, or no folder for an encoder.
    """
    asked = ModelSettings(**choices)
    find_codec(asked.codec)
    chosen = choose_model(asked, run.device, run.offline)
    description = describe_extractor(chosen.name)
    wanted = choose_modes(description.modes, modes or description.default_modes)
    settings = resolve(replace(asked, model=chosen.name), wanted, run.device)
    return Recipe(settings, {mode.name: mode.target for mode in wanted}, chosen)


def stored_recipe(reader: IndexReader, root: Path) -> Recipe:
    """Return the recipe that the index was made with."""
    generation = reader.generation
    try:
        settings = ModelSettings.from_json(generation.settings)
        targets = {mode: Target.from_json(values) for mode, values in generation.fingerprint["modes"].items()}
    except (KeyError, TypeError) as error:
        raise IndexIncompatibleError(
            f"{root} states no model that this version knows ({error}); it was made by {generation.created_by}"
        ) from error
    return Recipe(settings, targets, ChosenModel(settings.model, "the index was made with it"))


def continued_recipe(
    reader: IndexReader, root: Path, modes: Sequence[str] | None, choices: ModelChoices, run: BuildSettings
) -> Recipe:
    """Return the index's own recipe, after making sure that nothing else was asked for.

    Raises:
        IndexIncompatibleError: a choice differs from what the index was made with; both are printed.
    """
    stored = stored_recipe(reader, root)
    if modes is not None:
        wanted = choose_modes(describe_extractor(stored.settings.model).modes, modes)
        missing = [mode.name for mode in wanted if mode.name not in stored.targets]
        if missing:
            raise IndexIncompatibleError(
                f"{root} was built for {', '.join(stored.targets)}, not for {', '.join(missing)}; "
                "build another index (--index) with the modes you need"
            )
    asked = _asked(stored.settings, choices, stored, run)
    found = differences(stored.settings.to_json(), asked.to_json())
    # A folder is a place, not a meaning: whether the weights in it are the same, the fingerprint decides.
    found = [line for line in found if not line.startswith(("weights:", "encoders."))]
    if found or set(asked.encoders or {}) != set(stored.settings.encoders or {}):
        listed = "; ".join(found) or (
            f"encoders: {_names(stored.settings.encoders)} in the index, {_names(asked.encoders)} asked for"
        )
        raise IndexIncompatibleError(
            f"{root} was made with other settings ({listed}); leave them out, or build another index (--index)"
        )
    return replace(stored, settings=asked)


def _asked(settings: ModelSettings, choices: ModelChoices, stored: Recipe, run: BuildSettings) -> ModelSettings:
    find_codec(choices.get("codec", settings.codec))
    given = {key: value for key, value in choices.items() if not (key == "model" and value == "auto")}
    table = describe_extractor(settings.model).modes
    changed: Any = {**settings.to_json(), **given}
    return resolve(ModelSettings(**changed), choose_modes(table, stored.targets), run.device)


def _names(encoders: Mapping[str, Any] | None) -> str:
    return ", ".join(encoders or {}) or "none"


def check_fingerprint(
    stored: Mapping[str, Any], found: Mapping[str, Any], root: Path, ignore: tuple[str, ...] = ()
) -> None:
    """Raise IndexIncompatibleError, listing every difference, unless the loaded models are the index's own."""
    lines = [line for line in differences(stored, found) if not line.startswith(ignore)]
    if lines:
        raise IndexIncompatibleError(
            f"{root} was made by other models than those found here: {'; '.join(lines)}. Scores of both can't be "
            "mixed: name the right weights, or build another index"
        )
