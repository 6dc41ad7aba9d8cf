"""Connected components of a graph, and stars within it, in an order that nothing but the graph decides."""

from bisect import insort
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray


def components(first: Iterable[int], second: Iterable[int]) -> list[list[int]]:
    """Return the connected components of the edges between ``first`` and ``second``, each ascending, by lowest node."""
    parent: dict[int, int] = {}

    def root(node: int) -> int:
        parent.setdefault(node, node)
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for one, other in zip(first, second, strict=True):
        low, high = sorted((root(one), root(other)))
        parent[high] = low
    found: dict[int, list[int]] = {}
    for node in sorted(parent):
        found.setdefault(root(node), []).append(node)
    return sorted(found.values())


def stars(scores: Mapping[tuple[int, int], float]) -> list[list[int]]:
    """Return groups of nodes that are all joined to their first one; each node is in one group at most.

    The node with most neighbours that are still free is the next middle; of several the one with the largest sum of
    scores, then the lowest. Its neighbours follow, the closest first.
    """
    near: dict[int, dict[int, float]] = {}
    for (one, other), score in scores.items():
        near.setdefault(one, {})[other] = score
        near.setdefault(other, {})[one] = score
    found, free = list[list[int]](), set(near)
    waiting = sorted(near, key=lambda node: _order(node, near[node]))
    while waiting:
        node = waiting.pop(0)
        if node not in free:
            continue
        left = {other: score for other, score in near[node].items() if other in free}
        if len(left) < len(near[node]):  # some were taken meanwhile
            near[node] = left
            if left:
                _insert(waiting, node, near)
            continue
        group = [node, *sorted(left, key=lambda other: (-left[other], other))]
        free.difference_update(group)
        found.append(group)
    return found


def _order(node: int, near: Mapping[int, float]) -> tuple[int, float, int]:
    return -len(near), -round(sum(near.values()), 6), node


def _insert(waiting: list[int], node: int, near: Mapping[int, Mapping[int, float]]) -> None:
    insort(waiting, node, key=lambda each: _order(each, near[each]))


def same_digests(digests: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return pairs of rows with equal ``digests``: each row with the first one of its digest."""
    first_of: dict[str, int] = {}
    pairs = [(first_of.setdefault(digest, row), row) for row, digest in enumerate(digests)]
    joined = np.array([pair for pair in pairs if pair[0] != pair[1]], np.int64).reshape(-1, 2)
    return joined[:, 0], joined[:, 1]
