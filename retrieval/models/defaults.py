"""Which model is taken, and every default of it settled, before anything is loaded."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from retrieval.devices.selection import choose_device, choose_dtype, dtype_name
from retrieval.errors import UsageError
from retrieval.models.modes import Mode
from retrieval.models.registry import EXTRACTORS, describe_embedder, describe_extractor
from retrieval.models.weights import is_cached, is_offline
from retrieval.settings import ModelSettings


@dataclass(frozen=True)
class ChosenModel:
    """The answer to ``--model auto``, with the reason in one line."""

    name: str
    why: str


_CHOICE = "choose with --model sd15 or --model mini"


def choose_model(settings: ModelSettings, device: str, offline: bool) -> ChosenModel:
    """Choose the model: the one named; else sd15 where a GPU and its weights can be had; else the embedded mini."""
    if settings.model != "auto":
        describe_extractor(settings.model)
        return ChosenModel(settings.model, "as asked")
    if settings.weights is not None:
        return ChosenModel("sd15", "weights were given")
    if choose_device(device).type == "cpu":
        return ChosenModel("mini", f"no GPU in use, and sd15 takes half a minute an image on a CPU; {_CHOICE}")
    if is_cached(EXTRACTORS["sd15"], "unet/config.json"):
        return ChosenModel("sd15", f"a GPU and cached weights are at hand; {_CHOICE}")
    if offline or is_offline() or not _hub_answers():
        return ChosenModel("mini", f"sd15's weights are neither cached nor can be downloaded; {_CHOICE}")
    size = EXTRACTORS["sd15"].download_mb / 1000
    return ChosenModel("sd15", f"a GPU is at hand; its weights, {size:.1f} GB, are downloaded once; {_CHOICE}")


def _hub_answers() -> bool:
    from huggingface_hub import HfApi

    try:
        HfApi().model_info(EXTRACTORS["sd15"].repo, revision=EXTRACTORS["sd15"].revision, timeout=5)
    except Exception:  # whatever goes wrong on the way to the hub, the answer is no
        return False
    return True


def resolve(settings: ModelSettings, modes: Sequence[Mode], device: str) -> ModelSettings:
    """Replace every "the model's own" by its value, so that an index keeps its meaning when defaults change.

    Raises:
        UsageError: an encoder that has no folder beside local weights; the message says how to name one.
    """
    description = describe_extractor(settings.model)
    dtype = settings.dtype
    if dtype == "auto" and "dtype" in description.unused:
        dtype = "float32"  # whatever the device's own is: the index is the same
    return replace(
        settings,
        weights=None if settings.weights is None else str(Path(settings.weights).resolve()),
        image_size=settings.image_size or description.image_size or None,
        noise=settings.noise or description.noise,
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
    if settings.weights is None or not encoder.download_mb:
        return None  # from the hub, or without weights
    if encoder.repo == describe_extractor(settings.model).repo:
        return str(Path(settings.weights).resolve())  # one network is both
    beside = Path(settings.weights).resolve().parent / name
    if not beside.is_dir():
        raise UsageError(
            f"local weights were given, but there is no folder {beside} for the encoder '{name}'; "
            f"name one with --encoders {name}=FOLDER, or build without a coarse stage with --encoders none"
        )
    return str(beside)
