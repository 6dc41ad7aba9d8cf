"""Compare fingerprints. A fingerprint holds everything that changes a stored number: model, pixels, modes, codec."""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from retrieval.errors import IndexIncompatibleError
from retrieval.models.references import ATTENTION, POOLED

BY_NAME = ("modes", "encoders")  # the parts that hold an object for each name
PROBE = "pixels.probe:"  # the beginning of the line on another Pillow or libjpeg
IN_NO_VECTOR = re.compile(r"encoders\..+\.mode\.values\.sharpness: ")  # a mean of values does not depend on attention


def check_shape(fingerprint: Mapping[str, Any]) -> None:
    """Raise TypeError or KeyError unless all parts of an index's fingerprint that are read have their JSON types."""
    for part in ("model", "pixels", *BY_NAME):
        if not isinstance(fingerprint[part], Mapping):
            raise TypeError(f"fingerprint.{part} is not an object")
    for part in BY_NAME:
        for name, values in fingerprint[part].items():
            if not isinstance(values, Mapping):
                raise TypeError(f"fingerprint.{part}.{name} is not an object")
    if not isinstance(fingerprint["codec"], str):
        raise TypeError("fingerprint.codec is not a text")


def grown_fingerprint(stored: Mapping[str, Any], found: Mapping[str, Any], root: Path) -> dict[str, Any]:
    """Return the fingerprint ``stored`` in an index with the new modes and encoders of the loaded models ``found``.

    Raises:
        IndexIncompatibleError: the two differ in something that the index has already.
    """
    common = {part: {name: value for name, value in found[part].items() if name in stored[part]} for part in BY_NAME}
    check_fingerprint(stored, {**found, **common}, root)
    return {**stored, **{part: {**stored[part], **found[part]} for part in BY_NAME}}


def check_fingerprint(
    stored: Mapping[str, Any], found: Mapping[str, Any], root: Path, ignore: tuple[str, ...] = ()
) -> None:
    """Compare the fingerprint of an index with that of the loaded models; keys that begin with ``ignore`` may differ.

    Raises:
        IndexIncompatibleError: they differ; the message lists every difference.
    """
    every = differences(stored, _comparable(stored, found))
    lines = [line for line in every if not line.startswith(ignore) and not IN_NO_VECTOR.match(line)]
    if len(lines) == 1 and lines[0].startswith(PROBE):
        raise IndexIncompatibleError(
            f"{root} was made with a Pillow or libjpeg that gives other pixels than the one found here ({lines[0]}). "
            "Their scores can't be mixed: install the versions that the index was made with, or build another index"
        )
    if lines:
        raise IndexIncompatibleError(
            f"{root} was made with other models than the loaded ones: {'; '.join(lines)}. Their scores can't be mixed: "
            "name the weights that the index was made with, or build another index"
        )


def _comparable(stored: Mapping[str, Any], found: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return ``found`` without the probe of pixels where an index was made before there was one."""
    if "probe" in stored.get("pixels", {}):
        return found
    pixels = {name: value for name, value in found.get("pixels", {}).items() if name != "probe"}
    return {**found, "pixels": pixels}


def tensors_digest(fingerprint: Mapping[str, Any], mode: str) -> str:
    """Return a digest (16 hex digits) of the parts of a fingerprint that the tensors of ``mode`` depend on."""
    parts = {name: fingerprint[name] for name in ("model", "pixels", "codec")} | {"mode": fingerprint["modes"][mode]}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def differences(stored: Mapping[str, Any], asked: Mapping[str, Any], prefix: str = "") -> list[str]:
    """List the differences of two fingerprints, such as ``model.seed: 2334 in the index, 1 asked for``."""
    found = []
    for key in sorted({*stored, *asked}):
        mine, yours = stored.get(key), asked.get(key)
        if isinstance(mine, Mapping) and isinstance(yours, Mapping):
            found += differences(mine, yours, f"{prefix}{key}.")
        elif mine != yours:
            found.append(f"{prefix}{key}: {_abbreviated(mine)} in the index, {_abbreviated(yours)} asked for")
    return found


def _abbreviated(value: Any) -> str:
    if value is None:
        return "nothing"
    text = str(value)
    whole = len(text) <= 40 or text.startswith((POOLED, ATTENTION))  # a name that names a commit ends with the layer
    return text if whole else f"{text[:12]}..."
