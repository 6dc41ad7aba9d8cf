"""What a CUDA device computes is what the CPU computes, within the stated tolerance: ``pytest -m gpu``."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from retrieval import BuildSettings, Engine, EngineSettings, build_index
from retrieval.scoring.aas import QKV
from retrieval.search.tensors.memory_cache import MemoryCache
from retrieval.types import DeviceName
from tests.support.golden import DATA
from tests.support.reranking import scores_of

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
TOLERANCE = 2e-3
SD15_U0 = (2, 8, 256, 160)


def test_scores_are_those_of_the_cpu_from_disk_and_from_memory() -> None:
    generator = torch.Generator().manual_seed(0)
    queries = [QKV(*(torch.randn((1, *SD15_U0), generator=generator) for _ in range(3))) for _ in range(2)]
    stored = {name: torch.randn((40, *SD15_U0), generator=generator).half().numpy() for name in "qkv"}
    rows = [list(range(40)), list(range(0, 40, 3))]
    reads: list[int] = []

    def read(wanted: Sequence[int]) -> dict[str, np.ndarray]:
        reads.extend(wanted)
        return {name: array[list(wanted)] for name, array in stored.items()}

    exact = scores_of(queries, rows, read)
    cache = MemoryCache(1 << 30).of_mode("style", torch.float16)
    on_device = [query.to("cuda") for query in queries]
    for wanted in (list(range(40)), []):  # the second time all of them are in the GPU's memory
        reads.clear()
        found = scores_of(on_device, rows, read, cache=cache)
        assert sorted(reads) == wanted
        for expected, scores in zip(exact, found, strict=True):
            np.testing.assert_allclose(scores, expected, atol=TOLERANCE)
    assert len(cache.cache) == 40


@pytest.mark.parametrize("codec", ["qkv-float16", "hidden-int8"])
@pytest.mark.parametrize("model", ["cells", "sd15"])
def test_an_index_built_and_searched_on_a_gpu(model: str, codec: str, gallery: Path, tmp_path: Path) -> None:
    files = sorted(gallery.rglob("*.png"))
    weights = {"weights": str(DATA / "tiny_sd15"), "image_size": 128, "encoders": {}} if model == "sd15" else {}

    def scores(device: DeviceName) -> dict[tuple[str, str], float]:
        index = tmp_path / f"{device}.diffsim"
        build_index(gallery, index, model=model, codec=codec, run=BuildSettings(device=device), **weights)  # type: ignore[arg-type]
        engine = Engine.open(index, EngineSettings(device=device))
        found = engine.search(files[0], exhaustive=True, k=len(files)), engine.search(files[0], k=len(files))
        assert [r.id for r in found[0]] == [r.id for r in found[1]]
        together = engine.search_many(files[:20], exhaustive=True, k=len(files))
        return {(Path(str(q)).name, r.path): r.score or 0.0 for q, results in together for r in results}

    on_cpu, on_gpu = scores("cpu"), scores("cuda")
    assert on_cpu.keys() == on_gpu.keys()
    assert max(abs(on_cpu[pair] - on_gpu[pair]) for pair in on_cpu) < TOLERANCE
