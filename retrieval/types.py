"""The closed sets of words, and the readout, that options, settings and fingerprints are made of. Imports nothing."""

from dataclasses import dataclass
from typing import Literal

AlphaRule = Literal["white", "drop"]
"""``white``: alpha is composited on white. ``drop``: it is ignored, as the published code does."""

Branches = Literal["both", "cond"]
"""Guidance branches of Stable Diffusion: ``both`` is published; ``cond`` halves compute and cache."""

NoiseRule = Literal["pairwise", "shared"]
"""``pairwise``: the published score. ``shared``: both images take the same draws, so score(A, B) = score(B, A)
and score(A, A) = 1: the right choice for duplicates and clustering, but another metric."""

Role = Literal["query", "gallery"]
"""The side of a pair that an image is on."""

Similarity = Literal["cosine", "mse"]
"""``cosine``: in [-1, 1], higher is closer. ``mse``: mean squared error, >= 0, lower is closer."""

Directions = Literal["both", "query_to_candidate", "candidate_to_query"]

AttentionRule = Literal["eager", "lazy"]
"""``eager``: a build computes every image's tensors. ``lazy``: it computes vectors only, which is far faster, and a
search computes the tensors of the candidates that lack them."""

Parity = Literal["sound", "published"]
"""Where the published code computes something else than it says: ``sound`` does what the method says,
``published`` what the published numbers came from. Each model's docstring says what it changes."""

DeviceName = Literal["auto", "cpu", "cuda", "mps"]

DtypeName = Literal["auto", "float32", "float16", "bfloat16"]


@dataclass(frozen=True)
class Readout:
    """How outputs are read before they are compared, elementwise: ``x``, or ``sqrt(max(x, 0) + floor)`` with a root.

    The published score reads them as they are. The root is for values that are histograms: the cosine of two roots is
    Bhattacharyya's coefficient, and the floor keeps empty bins comparable.
    """

    root: bool = False
    floor: float = 0.0


LINEAR = Readout()
