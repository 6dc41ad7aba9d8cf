"""The types of options, settings and fingerprints: closed sets of words, and the readout. Imports nothing of ours."""

from dataclasses import dataclass
from typing import Literal

AlphaRule = Literal["white", "drop"]
"""``white`` composites the alpha channel on white. ``drop`` ignores it, as the published code does."""

ColourRule = Literal["srgb", "ignored"]
"""``srgb`` converts colours by an image's ICC profile. ``ignored`` reads all colours as sRGB, as the published code
does and as versions before this rule did."""

Branches = Literal["both", "cond"]
"""Guidance branches of Stable Diffusion. ``both`` is the published choice; ``cond`` halves compute and cache."""

NoiseRule = Literal["pairwise", "shared"]
"""``pairwise`` is the published score. ``shared`` adds the same noise to both images, so that
score(A, B) = score(B, A) and score(A, A) = 1. That is right for duplicates and clustering, but it is another metric."""

Role = Literal["query", "gallery"]
"""The side of a pair: the image that is asked with, or an image that is searched."""

Similarity = Literal["cosine", "mse"]
"""``cosine`` lies in [-1, 1], higher is closer. ``mse``, the mean squared error, is at least 0, lower is closer."""

Directions = Literal["both", "query_to_candidate", "candidate_to_query"]
"""Which image's tokens look up the other's; ``both`` averages the two directions, as published."""

Combine = Literal["mean", "max", "union"]
"""How several images become one score: the weighted ``mean`` of their scores, the closest of them (``max``), or one
attention over the tokens of all (``union``)."""

Scaling = Literal["none", "csls"]
"""``csls`` takes half of how near a candidate is to its own neighbours off its score, before the order is decided."""

Fractions = tuple[float, float, float, float]
"""A box in a picture: x and y of its left top corner, width and height, as fractions of the picture's sides."""

LEAST_SUBJECT = 0.25
"""The smallest subject that a model looks for, of a picture's side: smaller ones hold few cells, alike by chance."""

AttentionRule = Literal["eager", "lazy"]
"""``eager``: a build computes the tensors of every image. ``lazy``: a build computes vectors only, which is far faster,
and a search computes the missing tensors of its candidates."""

Parity = Literal["sound", "published"]
"""Some published code differs from the paper. ``sound`` follows the paper, ``published`` follows the code behind the
published numbers. The docstring of each model says where they differ."""

DeviceName = Literal["auto", "cpu", "cuda", "mps"]
"""``auto`` takes a CUDA GPU, else an Apple GPU, else the CPU."""

DtypeName = Literal["auto", "float32", "float16", "bfloat16"]
"""The dtype that a model computes in; ``auto`` is the default of its device."""

WorkerKind = Literal["processes", "ray"]
"""Where the workers of a build are: in processes of this machine, or on a Ray cluster."""


@dataclass(frozen=True)
class Readout:
    """An elementwise map of attention outputs before they are compared.

    Without a root it is ``x``, as published. With a root it is ``sqrt(max(x, 0) + floor)``, for values that are
    histograms: the cosine of two roots is the Bhattacharyya coefficient, and the floor keeps empty bins comparable.
    """

    root: bool = False
    floor: float = 0.0


LINEAR = Readout()
