import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from index_store.vectors.flat import FlatIndex
from retrieval.search.candidates import fuse_rankings


def test_fusion_by_hand() -> None:
    first, second = np.array([4, 9, 2]), np.array([9, 7])
    # 9: 1/62 + 1/61; 4: 1/61; 7: 1/62; 2: 1/63
    assert fuse_rankings([first, second], 10).tolist() == [9, 4, 7, 2]
    assert fuse_rankings([first, second], 2).tolist() == [9, 4]


def test_one_ranking_stays_as_it_is_and_ties_go_to_the_lower_row() -> None:
    assert fuse_rankings([np.array([5, 1, 3])], 3).tolist() == [5, 1, 3]
    assert fuse_rankings([np.array([5]), np.array([1])], 2).tolist() == [1, 5]
    assert fuse_rankings([], 3).tolist() == []


@given(st.lists(st.permutations(list(range(8))), min_size=1, max_size=4), st.integers(1, 12))
def test_fusion_does_not_depend_on_the_order_of_encoders(rankings: list[list[int]], count: int) -> None:
    arrays = [np.array(ranking) for ranking in rankings]
    fused = fuse_rankings(arrays, count).tolist()
    assert fused == fuse_rankings(arrays[::-1], count).tolist()
    assert len(fused) == len(set(fused)) == min(count, 8)


def test_the_coarse_index_is_exact() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((300, 24)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index = FlatIndex(vectors)
    rows, cosines = index.search(vectors[17], 5)
    expected = vectors @ vectors[17]
    assert rows.tolist() == np.argsort(-expected, kind="stable")[:5].tolist()
    np.testing.assert_allclose(cosines, expected[rows], atol=1e-6)
    np.testing.assert_allclose(index.similarities(vectors[17], rows), expected[rows], atol=1e-6)
    assert len(index.search(vectors[0], 1000)[0]) == 300
