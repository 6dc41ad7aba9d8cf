"""An image whose numbers are not finite is a reject; the other images of its batch are indexed."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from index_store.reader import IndexReader
from retrieval import Engine, EngineSettings, build_index
from retrieval.errors import ModelError
from retrieval.indexing.upkeep.repairing import verify
from retrieval.models.protocols import Pixels
from retrieval.scoring.aas import QKV
from tests.support.sample_index import RUN, paint
from tests.support.stub_models import TinyEmbedder, TinyExtractor

WRONG = (float("nan"), float("inf"), 1e6)  # the last one does not fit float16


@pytest.mark.parametrize("wrong", WRONG[:2])
def test_a_vector_that_is_not_finite(tiny: None, tmp_path: Path, wrong: float, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = paint(tmp_path / "photos", range(4))
    embed = TinyEmbedder.embed

    def broken(self: TinyEmbedder, pixels: Pixels) -> NDArray[np.float32]:
        vectors = embed(self, pixels)
        vectors[1:2, 0] = wrong  # the second image of each batch of two
        return vectors

    monkeypatch.setattr(TinyEmbedder, "embed", broken)
    check(tmp_path, paths)


@pytest.mark.parametrize("wrong", WRONG)
def test_a_tensor_that_is_not_finite(tiny: None, tmp_path: Path, wrong: float, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = paint(tmp_path / "photos", range(4))
    extract = TinyExtractor.extract

    def broken(self: TinyExtractor, *given: object) -> dict[object, QKV]:
        found = extract(self, *given)
        for qkv in found.values():
            qkv.k[1:2, 0, 0, 3, 2] = wrong
        return found

    monkeypatch.setattr(TinyExtractor, "extract", broken)
    check(tmp_path, paths)


def check(folder: Path, paths: list[Path]) -> None:
    report = build_index(folder / "photos", folder / "x.diffsim", model="sd15", modes=["style"], run=RUN)
    reader = IndexReader(folder / "x.diffsim")
    assert reader.uris() == [str(paths[0]), str(paths[2])]
    assert [(reject.uri, reject.reason) for reject in reader.rejects()] == [
        (str(paths[1]), "not_finite"),
        (str(paths[3]), "not_finite"),
    ]
    assert report.items == 2
    assert verify(folder / "x.diffsim") == []


def test_a_query_whose_tensors_are_not_finite_is_an_error(
    tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [path, *_] = paint(tmp_path / "photos", range(4))
    build_index(tmp_path / "photos", tmp_path / "x.diffsim", model="sd15", modes=["style"], run=RUN)
    nothing = torch.full((1, 1, 2, 12, 8), torch.nan)
    monkeypatch.setattr(
        TinyExtractor, "extract", lambda self, pixels, targets, role: dict.fromkeys(targets, QKV(*[nothing] * 3))
    )
    with pytest.raises(ModelError, match="infinite or not a number"):
        Engine.open(tmp_path / "x.diffsim", EngineSettings(device="cpu")).search(path)
