"""Which encoders choose the candidates of a mode in an index."""

from collections.abc import Mapping

from index_store.reader import IndexReader
from retrieval.models.modes import Mode


def usable_encoders(reader: IndexReader) -> tuple[str, ...]:
    """Return the encoders that the index has vectors of; of an empty index, all that it is built for."""
    names = reader.generation.encoders
    return tuple(name for name in names if not len(reader) or bool(reader.has_vector(name).any()))


def encoders_of_mode(reader: IndexReader, modes: Mapping[str, Mode], mode: str) -> tuple[str, ...]:
    """Return the encoders that find a mode's candidates: the mode's own, else all that the index has vectors of.

    Args:
        reader: the index.
        modes: of the index's model, by name.
        mode: whose candidates are wanted.
    """
    usable = usable_encoders(reader)
    preferred = modes[mode].encoders if mode in modes else ()
    return tuple(name for name in preferred if name in usable) or usable
