"""The hard vote of the paper: each member says which of two images is closer, and the majority decides."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from retrieval.errors import UsageError
from retrieval.metrics.base import Features, Metric, MetricSettings
from retrieval.metrics.registry import MetricDescription, describe_metric, load_metric
from retrieval.types import Role


def load(description: MetricDescription, settings: MetricSettings, device: torch.device, offline: bool) -> "Ensemble":
    """Load the paper's three members, each with its own default settings.

    Raises:
        UsageError: settings were given; they would mean different things to each member.
    """
    if settings != MetricSettings():
        raise UsageError("an ensemble runs its members with their own settings: give no layer, weights and so on")
    return Ensemble({name: load_metric(name, None, device, offline) for name in description.members})


def load_ensemble(names: Sequence[str], loaded: Mapping[str, Metric]) -> "Ensemble":
    """Return an ensemble of loaded metrics.

    Raises:
        UsageError: an unknown metric, or see :func:`check_voters`.
    """
    for name in names:
        describe_metric(name)
    check_voters(len(set(names)))
    return Ensemble({name: loaded[name] for name in names})


def check_voters(count: int) -> None:
    """Raise a UsageError unless ``count`` is odd and three or more: with an even number, a vote could be tied."""
    if count < 3 or count % 2 == 0:
        raise UsageError(f"a vote needs an odd number of metrics, three or more, not {count}")


def vote(margins: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Return the majority of members, ``(sign(sum over members of sign(margin)) + 1) / 2``.

    Args:
        margins: ``[members, ...]``; how much closer a member finds the first image of a pair than the second. A member
            with margin 0 votes for neither image.

    Returns:
        ``[...]``: 1 where the majority finds the first image closer, 0 for the second, 1/2 for a tie.
    """
    decided: NDArray[np.float64] = (np.sign(np.sign(margins).sum(axis=0, dtype=np.float64)) + 1) / 2
    return decided


class Ensemble(Metric):
    """The share of the gallery's other images that an image beats by majority (Copeland).

    For a gallery of two this is the paper's vote: 1 for the closer image, 0 for the other. A member that finds both
    equally close votes for neither image; the published code counts it for the true neighbour.
    """

    comparative: ClassVar[bool] = True

    def __init__(self, members: Mapping[str, Metric]) -> None:
        """Take loaded metrics by name."""
        self._members = members
        self.one_role = all(member.one_role for member in members.values())
        self.batch_size = min(member.batch_size for member in members.values())

    def encode(self, images: Sequence[Image.Image], role: Role) -> Features:
        """Return every member's features, named ``member/feature``."""
        return _named({name: member.encode(images, role) for name, member in self._members.items()})

    def encode_files(self, images: Sequence[Image.Image], paths: Sequence[Path], role: Role) -> Features:
        """See :class:`retrieval.metrics.base.Metric`."""
        return _named({name: member.encode_files(images, paths, role) for name, member in self._members.items()})

    def score(self, query: Features, gallery: Features) -> NDArray[np.float32]:
        """Return the class's shares; memory is quadratic in the gallery."""
        scores = [member.score(_part(query, name), _part(gallery, name)) for name, member in self._members.items()]
        signs = [1.0 if member.higher_is_closer else -1.0 for member in self._members.values()]
        return majority(np.stack([sign * row for sign, row in zip(signs, scores, strict=True)]))

    def file_key(self, path: Path) -> str:
        """See :class:`retrieval.metrics.base.Metric`."""
        return "".join(member.file_key(path) for member in self._members.values())

    def fingerprint(self) -> dict[str, Any]:
        """See :class:`retrieval.metrics.base.Metric`."""
        return {name: member.fingerprint() for name, member in self._members.items()}


def majority(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return Copeland shares for scores ``[members, images]`` (higher is closer): float32 ``[images]``, 0 to 1."""
    wins = vote(scores[:, :, None] - scores[:, None, :])  # 1: the row's image beats the column's
    np.fill_diagonal(wins, 0.0)
    shares: NDArray[np.float32] = (wins.sum(axis=1) / max(1, scores.shape[1] - 1)).astype(np.float32)
    return shares


def _named(features: Mapping[str, Features]) -> Features:
    return {f"{name}/{feature}": tensor for name, own in features.items() for feature, tensor in own.items()}


def _part(features: Features, name: str) -> Features:
    prefix = f"{name}/"
    return {key.removeprefix(prefix): tensor for key, tensor in features.items() if key.startswith(prefix)}
