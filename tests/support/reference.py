"""The AAS as its formula says, in float64 numpy; tests compare the kernel with it."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def attention(q: Array, k: Array, v: Array) -> Array:
    """softmax(q kᵀ / sqrt(d)) v for one item ``[branches, heads, tokens, head_dim]``."""
    logits = q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True) @ v


def directed(a: tuple[Array, Array, Array], b: tuple[Array, Array, Array], similarity: str) -> float:
    """AAS(A→B) of (Q, K, V) triples."""
    own, cross = attention(*a).ravel(), attention(a[0], b[1], b[2]).ravel()
    if similarity == "mse":
        return float(np.mean((own - cross) ** 2))
    return float(own @ cross / (np.linalg.norm(own) * np.linalg.norm(cross)))


def diffsim(a: tuple[Array, Array, Array], b: tuple[Array, Array, Array], similarity: str = "cosine") -> float:
    """The mean of both directions."""
    return (directed(a, b, similarity) + directed(b, a, similarity)) / 2
