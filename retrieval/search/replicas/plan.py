"""Which replica holds which segments: segments make partitions, and each partition lies on several replicas."""

from collections.abc import Mapping
from dataclasses import dataclass

UNEVEN = 0.2  # of the mean partition, by which two may differ before segments move


@dataclass(frozen=True)
class ReplicaPlan:
    """The segments of one generation, divided among replicas. There are as many partitions as replicas.

    Partition p lies on replica p and, with a replication of r, on the r - 1 replicas after it.
    """

    partitions: tuple[tuple[str, ...], ...]  # names of segments
    replication: int = 1

    @classmethod
    def make(
        cls, sizes: Mapping[str, int], replicas: int, replication: int = 1, previous: "ReplicaPlan | None" = None
    ) -> "ReplicaPlan":
        """Divide segments evenly; those of ``previous`` stay where they are, unless that is too uneven.

        Args:
            sizes: rows of each segment.
            replicas: how many there are.
            replication: replicas that hold each partition, ``replicas`` at most.
            previous: the plan of an older generation with as many replicas.
        """
        parts: list[list[str]] = [[] for _ in range(replicas)]
        before = previous.partitions if previous is not None and len(previous.partitions) == replicas else ()
        for part, names in zip(parts, before, strict=False):
            part += [name for name in names if name in sizes]
        known = {name for part in parts for name in part}
        for name in sorted(sizes.keys() - known, key=lambda name: (-sizes[name], name)):
            min(parts, key=lambda part: (_rows(part, sizes), len(part))).append(name)
        _even_out(parts, sizes)
        return cls(tuple(tuple(part) for part in parts), min(replication, replicas))

    def holders(self, partition: int) -> list[int]:
        """Return the replicas that hold a partition, the one that is asked first at the front."""
        return [(partition + step) % len(self.partitions) for step in range(self.replication)]

    def of_replica(self, replica: int) -> dict[int, tuple[str, ...]]:
        """Return the partitions that a replica holds, by number."""
        count = len(self.partitions)
        return {(replica - step) % count: self.partitions[(replica - step) % count] for step in range(self.replication)}


def _rows(part: list[str], sizes: Mapping[str, int]) -> int:
    return sum(sizes[name] for name in part)


def _even_out(parts: list[list[str]], sizes: Mapping[str, int]) -> None:
    """Move segments from the largest partition to the smallest while they differ by much and a move helps."""
    mean = sum(sizes.values()) / len(parts)
    while True:
        largest, smallest = (choose(parts, key=lambda part: _rows(part, sizes)) for choose in (max, min))
        gap = _rows(largest, sizes) - _rows(smallest, sizes)
        movable = [name for name in largest if 0 < sizes[name] < gap]
        if gap <= UNEVEN * mean or not movable:
            return
        moved = min(movable, key=lambda name: (abs(gap - 2 * sizes[name]), name))
        largest.remove(moved)
        smallest.append(moved)
