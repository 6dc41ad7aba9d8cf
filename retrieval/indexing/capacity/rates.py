"""The rates that a capacity plan is made from: the time and bytes of one image, one vector, one candidate."""

import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

from retrieval.errors import UsageError


@dataclass(frozen=True)
class Rates:
    """Seconds and bytes of one thing each; a core is one thread of a processor."""

    model: str
    device: str  # that computed: its type
    image_bytes: float  # of an image file, as it is read
    decode_seconds: float  # of a core, to decode and resize an image
    compute_seconds: float  # of a device, to compute everything that the index stores of an image
    write_seconds: float  # of a core, to encode an image's tensors and write them
    tensor_bytes: float  # of an image's tensors in all modes
    vector_bytes: float  # of an image's coarse vectors of all encoders
    beside_bytes: float  # of an image's row in the catalogue
    query_bytes: float  # of a query's tensors of one mode and its vectors, as they are sent to a replica
    encode_seconds: float  # of a device, to compute a query for one mode
    scan_seconds: float  # of a core, to compare a query with a million vectors
    score_seconds: float  # of a device, to score one candidate of one mode
    candidate_bytes: float  # of a candidate's tensors of one mode
    commit_seconds: float = 0.02  # of a commit, however few segments there are
    commit_segment_seconds: float = 6e-5  # more of it for every segment that the index has
    startup_seconds: float = 10.0  # from starting a worker to its first image
    train_seconds: float = 30.0  # of a core, to train and fill an IVF index, for a million vectors

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Rates":
        """Read the object that :meth:`to_json` gives; names with a default may be left out.

        Raises:
            UsageError: an unknown name, a value that is not a number of 0 or more, or one that is missing.
        """
        if missing := missing_rates(values):
            raise UsageError(f"rates are missing: {', '.join(missing)}")
        return cls(**values)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def missing_rates(values: Mapping[str, Any]) -> list[str]:
    """Return the names of rates that ``values`` lack and that have no default.

    Raises:
        UsageError: an unknown name, or a value that is not a number of 0 or more.
    """
    known = {field.name: field for field in fields(Rates)}
    unknown = sorted(values.keys() - known.keys())
    if unknown:
        raise UsageError(f"unknown rates {', '.join(unknown)}; known: {', '.join(known)}")
    for name, value in values.items():
        is_text = name in ("model", "device")
        if is_text != isinstance(value, str) or (not is_text and not (_is_number(value) and value >= 0)):
            raise UsageError(f"the rate {name} must be {'a text' if is_text else 'a number of 0 or more'}")
    return [name for name, field in known.items() if name not in values and field.default is MISSING]


def read_rates(path: Path) -> dict[str, Any]:
    """Read some or all rates from a JSON file: the object itself, or a plan's JSON, which holds it under ``rates``.

    Raises:
        UsageError: the file can't be read or holds anything else.
    """
    try:
        values = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} can't be read as rates: {error}") from error
    found = values.get("rates", values) if isinstance(values, dict) else None
    if not isinstance(found, dict):
        raise UsageError(f"{path} holds no object of rates")
    missing_rates(found)
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
