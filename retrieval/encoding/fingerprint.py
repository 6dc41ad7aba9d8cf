"""Fingerprints: all that changes a stored number, and how two of them differ."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from retrieval.errors import IndexIncompatibleError


def grown_fingerprint(stored: Mapping[str, Any], found: Mapping[str, Any], root: Path) -> dict[str, Any]:
    """Return the index's fingerprint with the modes and encoders that the loaded models have beside its own.

    Raises:
        IndexIncompatibleError: they differ in what the index has.
    """
    parts = ("modes", "encoders")
    common = {part: {name: value for name, value in found[part].items() if name in stored[part]} for part in parts}
    check_fingerprint(stored, {**found, **common}, root)
    return {**stored, **{part: {**stored[part], **found[part]} for part in parts}}


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


def tensors_digest(fingerprint: Mapping[str, Any], mode: str) -> str:
    """Return a digest, 16 hex digits, of all in a fingerprint that a mode's tensors depend on."""
    parts = {name: fingerprint[name] for name in ("model", "pixels", "codec")} | {"mode": fingerprint["modes"][mode]}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def differences(stored: Mapping[str, Any], asked: Mapping[str, Any], prefix: str = "") -> list[str]:
    """List where two fingerprints differ, as ``model.seed: 2334 in the index, 1 asked``."""
    found = []
    for key in sorted({*stored, *asked}):
        mine, yours = stored.get(key), asked.get(key)
        if isinstance(mine, Mapping) and isinstance(yours, Mapping):
            found += differences(mine, yours, f"{prefix}{key}.")
        elif mine != yours:
            found.append(f"{prefix}{key}: {_short(mine)} in the index, {_short(yours)} asked for")
    return found


def _short(value: Any) -> str:
    if value is None:
        return "nothing"
    text = str(value)
    return text if len(text) <= 40 else f"{text[:12]}..."
