"""Recall of candidate generation, of an encoder and of an index."""

import shutil
from pathlib import Path

import pytest

from retrieval.errors import UsageError
from retrieval.evaluation.candidate_recall import Recall, coarse_recall, index_recall
from retrieval.evaluation.runner import Run
from retrieval.metrics.registry import load_metric


def assert_recall(found: list[Recall], k: int) -> None:
    """The candidates are 5, 10 and all 39."""
    assert [(row.k, row.candidates) for row in found] == [(k, 5), (k, 10), (k, 39)]
    for shares in ([row.recall for row in found], [row.whole for row in found]):
        assert shares == sorted(shares)
        assert shares[-1] == 1.0
    assert 0.1 < found[0].recall < 1.0
    assert found[0].whole < found[0].recall


def test_recall_of_an_encoder_rises_with_the_candidates(gallery: Path) -> None:
    import torch

    from retrieval.models.registry import load_embedder

    encoder = load_embedder("descriptor", None, torch.device("cpu"), offline=True)
    run = Run({"cells": load_metric("cells")})
    found = coarse_recall(gallery, "cells", encoder, [5, 10, 39], run, k=5)
    assert_recall(found, 5)
    assert (found[0].of, found[0].queries) == ("cells", 40)


def test_recall_of_an_index_rises_with_the_candidates_in_every_mode(index: Path) -> None:
    from retrieval import Engine

    engine = Engine.open(index)
    found = index_recall(engine, [5, 10, 39], k=5, queries=8)
    assert {row.of for row in found} == set(engine.modes)
    assert {row.queries for row in found} == {8}
    for mode in engine.modes:
        assert_recall([row for row in found if row.of == mode], 5)


@pytest.mark.usefixtures("tiny")
def test_copies_of_the_query_do_not_count_as_neighbours(tmp_path: Path) -> None:
    """20 of 24 images are copies, so four others are to be found; without these there is nothing to measure."""
    from retrieval import Engine, build_index
    from tests.support.sample_index import RUN, paint

    only, *_ = paint(tmp_path / "images", range(1))
    for number in range(19):
        shutil.copy(only, tmp_path / "images" / f"copy {number}.png")
    build_index(tmp_path / "images", tmp_path / "t.diffsim", run=RUN, modes=["style"])
    with pytest.raises(UsageError, match="nothing but copies of one image"):
        index_recall(Engine.open(tmp_path / "t.diffsim"), [4], k=4)
    paint(tmp_path / "images", range(1, 5))
    build_index(tmp_path / "images", tmp_path / "t.diffsim", run=RUN)
    (found,) = index_recall(Engine.open(tmp_path / "t.diffsim"), [4], k=4)
    # A copy has only the four others as candidates. For one of the four, copies may take all places.
    assert found.queries == 24
    assert found.recall >= found.whole >= 20 / 24
