"""Choose the model and settle its defaults, before anything is loaded."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from retrieval.devices.selection import choose_device, choose_dtype, dtype_name
from retrieval.errors import UsageError
from retrieval.models.descriptions import Description
from retrieval.models.mini.weights import why_unusable
from retrieval.models.modes import Mode
from retrieval.models.registry import EXTRACTORS, default_encoders, describe_embedder, describe_extractor
from retrieval.models.weights import hub
from retrieval.models.weights.finding import are_cached, is_offline, source_of
from retrieval.settings import ModelSettings

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class ChosenModel:
    """The model that ``auto`` stands for here, with the reason in one line."""

    name: str
    why: str


def choose_model(settings: ModelSettings, device: str, offline: bool) -> ChosenModel:
    """Choose the model: the named one; else sd15, given a GPU and its weights; else mini; else cells.

    Raises:
        UsageError: an unknown model.
    """
    if settings.model != "auto":
        describe_extractor(settings.model)
        return ChosenModel(settings.model, "as asked")
    if settings.weights is not None:
        return ChosenModel("sd15", "weights were given")
    if choose_device(device).type == "cpu":
        return _built_in("there is no GPU in use, and sd15 takes half a minute an image on a CPU")
    if are_cached([EXTRACTORS["sd15"], *_hub_encoders(settings)]):
        return ChosenModel("sd15", "there is a GPU, and the weights are cached")
    if offline or is_offline() or not _hub_answers():
        return _built_in("the weights of sd15 are not cached and can't be downloaded")
    size = EXTRACTORS["sd15"].download_mb / 1000
    return ChosenModel("sd15", f"there is a GPU; the weights, {size:.1f} GB, are downloaded once")


def _built_in(why: str) -> ChosenModel:
    """Return mini; where its package is missing or damaged, cells, which needs no weights."""
    problem = why_unusable()
    return ChosenModel("mini", why) if problem is None else ChosenModel("cells", f"{why}; {problem}")


def _hub_encoders(settings: ModelSettings) -> list[Description]:
    """Return the encoders that come from the hub: those asked for, or those of the default modes."""
    names = settings.encoders
    if names is None:
        names = dict.fromkeys(encoder.name for encoder in default_encoders("sd15"))
    return [describe_embedder(name) for name, folder in names.items() if folder is None]


def _hub_answers() -> bool:
    sd15 = source_of(EXTRACTORS["sd15"])
    try:
        hub.ask_size(sd15, sd15.parts[0].path(sd15.parts[0].files[0]))
    except Exception as error:  # any failure means that the hub, or its mirror, can't be used now
        _LOG.warning("the hub gives no answer (%s), so auto does not choose sd15", error)
        return False
    return True


def resolve(settings: ModelSettings, modes: Sequence[Mode], device: str) -> ModelSettings:
    """Fill in every value that was left to the model, so that an index keeps its meaning when defaults change.

    Raises:
        UsageError: an encoder without a folder beside local weights.
    """
    description = describe_extractor(settings.model)
    dtype = settings.dtype
    if dtype == "auto" and "dtype" in description.unused:
        dtype = "float32"  # the model ignores the dtype, so its indexes are the same on every device
    return replace(
        settings,
        weights=None if settings.weights is None else str(Path(settings.weights).resolve()),
        image_size=settings.image_size or description.image_size or None,
        noise=settings.noise or description.noise,
        codec=settings.codec or description.codec,
        dtype=dtype_name(choose_dtype(dtype, choose_device(device))),
        encoders=_resolve_encoders(settings, modes),
    )


def _resolve_encoders(settings: ModelSettings, modes: Sequence[Mode]) -> dict[str, str | None]:
    names = settings.encoders
    if names is None:
        names = dict.fromkeys(encoder for mode in modes for encoder in mode.encoders)
    return {name: _encoder_folder(name, folder, settings) for name, folder in names.items()}


def _encoder_folder(name: str, folder: str | None, settings: ModelSettings) -> str | None:
    encoder = describe_embedder(name)
    if folder is not None:
        return str(Path(folder).resolve())
    if settings.weights is None or encoder.source is None:
        return None  # it comes from the hub, or has no weights
    if encoder.repo == describe_extractor(settings.model).repo:
        return str(Path(settings.weights).resolve())  # one network serves as both
    beside = Path(settings.weights).resolve().parent / name
    if not beside.is_dir():
        raise UsageError(
            f"local weights were given, but there is no folder {beside} for the encoder '{name}'",
            advice="name-encoder-folder",
            encoder=name,
        )
    return str(beside)
