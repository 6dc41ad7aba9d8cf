"""The settings of models."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import UnionType
from typing import Any, Literal, TypedDict, Union, get_args, get_origin, get_type_hints

from retrieval.settings.checks import at_least
from retrieval.types import AlphaRule, Branches, ColourRule, DtypeName, NoiseRule, Parity

PUBLISHED_SEED = 2334
PUBLISHED_PROMPT = "High quality image"
OLDEST_CODEC = "qkv-float16"  # of indexes from before there were several


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """How a model is run: the part that indexes and metrics share."""

    weights: str | None = None  # a local folder; None: the hub's pinned revision, or none (cells)
    image_size: int | None = None  # pixels a side; None: the model's own
    branches: Branches = "both"
    noise: NoiseRule | None = None  # None: the model's own (pairwise for SD 1.5)
    seed: int = PUBLISHED_SEED
    prompt: str = PUBLISHED_PROMPT
    dtype: DtypeName = "auto"
    parity: Parity = "sound"


@dataclass(frozen=True, kw_only=True)
class ModelSettings(RunSettings):
    """A model and how it is run. An index stores these settings, so that a search runs exactly as the build did."""

    model: str = "auto"  # a name in retrieval.models.registry.EXTRACTORS; auto: retrieval.models.defaults.choose_model
    alpha: AlphaRule = "white"
    colour: ColourRule = "srgb"
    codec: str | None = None  # how tensors are stored: a name in index_store.codecs.CODECS; None: the model's own
    # Name -> local folder, or None for the hub or for a folder of that name beside `weights`.
    # None as a whole: the encoders that the modes name.
    encoders: Mapping[str, str | None] | None = None

    def __post_init__(self) -> None:
        at_least(1, image_size=self.image_size)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "ModelSettings":
        """Read the values that :meth:`to_json` wrote.

        Keys of newer versions are ignored: the index's fingerprint says whether its tensors still mean the same. An
        index without a rule for colours was made before there was one, and keeps to it.

        Raises:
            TypeError: a value has another type than its field, as only somebody else's file can.
        """
        known = get_type_hints(cls)
        for name, value in values.items():
            if name in known and not _fits(value, known[name]):
                raise TypeError(f"{name} makes no sense: {str(value)[:40]!r}")
        older: dict[str, Any] = {"codec": OLDEST_CODEC, "colour": "ignored"}
        return cls(**{**older, **{key: value for key, value in values.items() if key in known}})


def _fits(value: object, hint: Any) -> bool:
    """Say whether a JSON value has the type of an annotation; a name of a Literal may be one of another version."""
    kind, parts = get_origin(hint), get_args(hint)
    if kind in (Union, UnionType):
        return any(_fits(value, part) for part in parts)
    if kind is Literal:
        return isinstance(value, str)
    if kind is Mapping:
        return isinstance(value, dict) and all(_fits(k, parts[0]) and _fits(v, parts[1]) for k, v in value.items())
    if hint in (int, float):
        return isinstance(value, (int, hint)) and not isinstance(value, bool)
    return isinstance(value, hint)


class ModelChoices(TypedDict, total=False):
    """The fields of :class:`ModelSettings` that a caller chose; an existing index keeps its own values for the rest."""

    model: str
    weights: str | None
    image_size: int | None
    branches: Branches
    noise: NoiseRule | None
    seed: int
    prompt: str
    dtype: DtypeName
    alpha: AlphaRule
    colour: ColourRule
    codec: str | None
    parity: Parity
    encoders: Mapping[str, str | None] | None
