import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.search.replicas.plan import UNEVEN, ReplicaPlan

SIZES = st.dictionaries(st.integers(0, 99).map(lambda n: f"s{n:02d}"), st.integers(1, 1024), max_size=30)


def loads(plan: ReplicaPlan, sizes: dict[str, int]) -> list[int]:
    return [sum(sizes[name] for name in part) for part in plan.partitions]


@given(SIZES, SIZES, st.integers(1, 8), st.integers(1, 3))
def test_every_segment_has_one_partition_and_each_partition_its_holders(
    before: dict[str, int], after: dict[str, int], replicas: int, replication: int
) -> None:
    first = ReplicaPlan.make(before, replicas, replication)
    for plan, sizes in ((first, before), (ReplicaPlan.make(after, replicas, replication, first), after)):
        assert sorted(name for part in plan.partitions for name in part) == sorted(sizes)
        assert len(plan.partitions) == replicas
        for partition in range(replicas):
            holders = plan.holders(partition)
            assert len(set(holders)) == min(replication, replicas)
            assert all(plan.of_replica(holder)[partition] == plan.partitions[partition] for holder in holders)
        largest, smallest = max(loads(plan, sizes)), min(loads(plan, sizes))
        mean = sum(sizes.values()) / replicas
        # No move of a segment would make it more even.
        heavy = plan.partitions[loads(plan, sizes).index(largest)]
        assert largest - smallest <= UNEVEN * mean or all(sizes[n] >= largest - smallest for n in heavy)


def test_segments_stay_where_they_are() -> None:
    first = ReplicaPlan.make({f"s{n}": 100 for n in range(12)}, 3)
    grown = ReplicaPlan.make({f"s{n}": 100 for n in range(13)}, 3, 1, first)
    for before, now in zip(first.partitions, grown.partitions, strict=True):
        assert set(before) <= set(now)
    shrunk = ReplicaPlan.make({f"s{n}": 100 for n in range(4, 13)}, 3, 1, grown)
    assert max(loads(shrunk, dict.fromkeys((f"s{n}" for n in range(13)), 100))) <= 400


def test_another_number_of_replicas_divides_anew() -> None:
    first = ReplicaPlan.make({f"s{n}": 10 for n in range(8)}, 2)
    assert [len(part) for part in ReplicaPlan.make({f"s{n}": 10 for n in range(8)}, 4, 1, first).partitions] == [
        2,
        2,
        2,
        2,
    ]


@pytest.mark.parametrize("replicas", [1, 3])
def test_an_empty_index_has_empty_partitions(replicas: int) -> None:
    assert ReplicaPlan.make({}, replicas).partitions == ((),) * replicas
