"""The closed sets of words that options, settings and stored fingerprints are made of. Imports nothing."""

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

DeviceName = Literal["auto", "cpu", "cuda", "mps"]

DtypeName = Literal["auto", "float32", "float16", "bfloat16"]

WorldKind = Literal["style", "instance", "layout"]
"""What the groups of the procedural world share, on which the embedded model is trained."""
