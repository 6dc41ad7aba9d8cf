"""Find the modes that store the same tensors, so that an index holds them once."""

from collections.abc import Mapping
from typing import Any

from index_store.codecs import Codec
from retrieval.models.modes import Target


def stored_names(targets: Mapping[str, Target], codec: Codec, known: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return by mode the name that its tensors are stored under: the first mode that stores the same ones.

    Args:
        targets: by mode, those of an existing index first.
        codec: of the index.
        known: the names of an existing index, by mode; they stay, even where modes could share.
    """
    names: dict[str, str] = {}
    first: dict[Any, str] = {}
    for mode, target in targets.items():
        stored = _stored_part(target, codec)
        names[mode] = known[mode] if known and mode in known else first.get(stored, mode)
        first.setdefault(stored, names[mode])
    return names


def _stored_part(target: Target, codec: Codec) -> tuple[Any, ...]:
    """Return the part of a target that stored tensors depend on: scores alone depend on the readout."""
    layer = target.layer, target.timestep
    return layer if codec.hidden else (*layer, target.values)
