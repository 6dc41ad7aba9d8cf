"""Nothing that runs on a device mixes in tensors of another.

No GPU is needed for that: torch's meta device, which has shapes and no numbers, stands in for one, and every operation
is watched. What a GPU computes is tested on one: tests/devices/test_gpu.py.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cli.advice import sentence_of
from retrieval.devices import transfer
from retrieval.devices.precision import SCORING_PRECISION
from retrieval.devices.selection import choose_device
from retrieval.devices.transfer import to_device
from retrieval.encoding.stored_tensors import stored_qkv
from retrieval.errors import UsageError
from retrieval.models.modes import Target
from retrieval.models.protocols import HiddenExtractor, readout_of
from retrieval.models.registry import describe_extractor, load_extractor
from retrieval.scoring.aas import QKV, Comparison, aligned_attention_scores
from retrieval.search.gpu_index import GpuIndex
from retrieval.search.reranking import ChunkScorer, QueryTensors
from retrieval.search.tensors.chunks import CachedChunk, StoredChunk
from retrieval.search.tensors.memory_cache import MemoryCache
from retrieval.settings import ModelSettings
from retrieval.types import LINEAR, Readout
from tests.models.test_vit import write_tiny_models
from tests.slices import loads_model_libraries
from tests.support.golden import DATA, golden_models, tiny_dit

pytestmark = loads_model_libraries

META = torch.device("meta")
COPIES = ("aten.copy_", "aten._to_copy", "aten.index")  # the index of rows may lie in this machine's memory
# What a GPU does not begin before it has told this machine how large the result is, or what is in it.
WAITS = ("item.", "_local_scalar_dense", "is_nonzero", "equal.", "allclose", "bincount", "histc")
WAITS += ("nonzero", "argwhere", "where.default", "masked_select", "unique", "_unique")


class OneDevice(TorchDispatchMode):
    """Fails where an operation takes tensors of two devices; single numbers may lie anywhere."""

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor) and leaf.dim()]
        if not str(operation).startswith(COPIES):
            assert len({tensor.device for tensor in tensors}) <= 1, f"{operation} on {[t.device for t in tensors]}"
        return operation(*args, **(kwargs or {}))


class NoWait(OneDevice):
    """Fails too where this machine would wait for a GPU: for what it has computed, or to copy from ordinary memory.

    Copies that :mod:`retrieval.devices.transfer` makes are from pinned memory, beside what the GPU computes.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self._uploading = False
        begin, made = transfer.begin_upload, torch.tensor

        def begin_upload(*arguments: Any) -> transfer.Upload:
            self._uploading = True
            try:
                return begin(*arguments)
            finally:
                self._uploading = False

        def tensor(*arguments: Any, **options: Any) -> torch.Tensor:  # its copy to a device is hidden from the watch
            found = made(*arguments, **options)
            assert found.device != META, "torch.tensor on a device waits"
            return found

        monkeypatch.setattr(transfer, "begin_upload", begin_upload)
        monkeypatch.setattr(torch, "tensor", tensor)

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name, given = str(operation).removeprefix("aten."), tree_leaves((args, kwargs))
        tensors = [leaf for leaf in given if isinstance(leaf, torch.Tensor)]
        if not self._uploading and META in (*given, *(each.device for each in tensors)):
            assert not name.startswith(WAITS), f"{operation} waits"
            if name.startswith(("copy_", "_to_copy", "to.", "index")):
                assert {each.device for each in tensors} == {META}, f"{operation} of ordinary memory waits"
                assert torch.bool not in {each.dtype for each in tensors[1:]}, f"{operation} by a mask waits"
        return super().__torch_dispatch__(operation, types, args, kwargs)


def test_the_watch_sees_what_torch_lets_pass() -> None:
    on_device, on_cpu = torch.empty(3, 4, device=META), torch.empty(3, 4)
    torch.nn.functional.linear(on_device, on_cpu)
    with OneDevice(), pytest.raises(AssertionError, match="cpu"):
        torch.nn.functional.linear(on_device, on_cpu)


def test_the_coarse_stage_stays_on_the_device_until_it_has_chosen() -> None:
    parts = [(np.arange(start, start + 50), np.ones((50, 16), np.float16)) for start in (0, 50)]
    query = np.ones(16, np.float32)
    with OneDevice():
        index = GpuIndex(parts, 100, META)
        with pytest.raises(NotImplementedError, match="out of meta tensor"):
            index.search(query, 5)
        with pytest.raises(NotImplementedError, match="out of meta tensor"):
            index.similarities(query, np.arange(3))


@pytest.mark.parametrize("readout", [LINEAR, Readout(root=True, floor=1e-5)])
def test_scoring_stays_on_the_device(readout: Readout, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what says which query wants which rows goes up once a step, as copies do that wait for nothing."""
    uploads: list[int] = []

    def counted(array: Any, device: torch.device) -> torch.Tensor:
        uploads.append(len(array))
        return to_device(array, device)

    monkeypatch.setattr("retrieval.search.reranking.to_device", counted)
    monkeypatch.setitem(SCORING_PRECISION, "meta", SCORING_PRECISION["cuda"])
    shape = (2, 4, 16, 8)
    stored = {name: torch.empty((20, *shape), dtype=torch.float16, device=META) for name in "qkv"}
    rows = list(range(20))
    queries = [
        QueryTensors(QKV(*(torch.empty((1, *shape), device=META) for _ in range(3))), mine)
        for mine in (rows, rows[::2], rows[1::2])
    ]
    cache = MemoryCache(1 << 30).of_mode("style", torch.float16)
    with NoWait(monkeypatch):
        scorer = ChunkScorer(queries, Comparison(readout=readout))
        scorer.score(StoredChunk(rows, stored, stored_qkv, cache))
        held = cache.find(rows)
        scorer.score(CachedChunk(list(held), list(held.values())))
    assert len(held) == 20
    assert uploads == [20, 20]  # two queries' ten of twenty rows, stored and held
    assert {t.device for row in held.values() for t in (row.q, row.k, row.v, row.output)} == {META}
    assert {row.output.dtype for row in held.values()} == {torch.float16}


def test_the_watch_sees_what_a_gpu_would_make_this_machine_wait_for(monkeypatch: pytest.MonkeyPatch) -> None:
    watch, there = NoWait(monkeypatch), torch.ones(6, device=META)
    for waits in (
        lambda: torch.ones(3).to(META),
        lambda: torch.tensor(3, device=META),
        lambda: torch.tensor([3.0, 4.0], device=META),
        lambda: there[torch.tensor([1, 2])],
        lambda: there[there > 0],
        lambda: there.copy_(torch.ones(6)),
        lambda: there.long().bincount(minlength=3),
        lambda: float(there[0]),
    ):
        for without_gradients in (False, True):  # composite operations are seen in parts, or as they are
            with pytest.raises(AssertionError, match="waits"), watch, torch.inference_mode(without_gradients):
                waits()  # type: ignore[no-untyped-call]
    with watch:
        assert transfer.to_device(np.ones(3), META).device == META


def stays_on_the_device(settings: ModelSettings, monkeypatch: pytest.MonkeyPatch, *targets: Target) -> None:
    """Run a model as a GPU would run it, in every mode it has or for some targets, and score what comes out."""
    extractor = load_extractor(replace(settings, dtype="float16"), META, offline=True)
    modes = describe_extractor(settings.model).modes.values()
    targets = targets or tuple(dict.fromkeys(mode.target for mode in modes))
    pixels = np.stack([extractor.prepare(Image.new("RGB", (40, 30)))] * 2)
    with NoWait(monkeypatch):
        tensors = extractor.extract(pixels, targets, "gallery")
        hidden = extractor.hidden(pixels, targets, "query") if isinstance(extractor, HiddenExtractor) else {}
    with OneDevice():
        for target, found in tensors.items():
            assert {t.device for t in (found.q, found.k, found.v)} == {META}
            readout = readout_of(extractor, target)
            scores = aligned_attention_scores(found[:1], found, Comparison(readout=readout, precision=torch.float16))
            assert (scores.device, scores.dtype) == (META, torch.float32)
        for target, found in hidden.items():
            projected = extractor.projection(target).to(META)(found.float())
            assert projected.q.shape == tensors[target].q.shape


@pytest.mark.parametrize(
    "settings",
    [
        ModelSettings(model="cells"),
        ModelSettings(model="sd15", weights=str(DATA / "tiny_sd15"), image_size=128),
        pytest.param(
            ModelSettings(
                model="sd15", weights=str(DATA / "tiny_sd15"), image_size=128, branches="cond", noise="shared"
            ),
            marks=pytest.mark.slow,
        ),
    ],
    ids=lambda settings: f"{settings.model}-{settings.branches}-{Path(settings.weights or 'none').name}",
)
@pytest.mark.thorough
def test_models_stay_on_the_device(settings: ModelSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    stays_on_the_device(settings, monkeypatch)


@pytest.mark.parametrize("model", ["clip-aas", "dinov2-aas"])
def test_vision_transformers_stay_on_the_device(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiny_models(tmp_path)
    stays_on_the_device(ModelSettings(model=model, weights=str(tmp_path / model.removesuffix("-aas"))), monkeypatch)


def test_dit_stays_on_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ModelSettings(model="dit-256", weights=str(tiny_dit(tmp_path)), image_size=128)
    stays_on_the_device(settings, monkeypatch, Target("1", 401))


@pytest.mark.parametrize(
    ("model", "folder"), [("diffsim-c", "sd15"), pytest.param("diffsim-xl", "sdxl", marks=pytest.mark.slow)]
)
@pytest.mark.thorough
def test_other_diffusion_models_stay_on_the_device(model: str, folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ModelSettings(model=model, weights=str(golden_models() / folder), image_size=128)
    stays_on_the_device(settings, monkeypatch)


def test_a_missing_device_is_an_error_that_lists_those_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [choose_device(name) for name in ("cuda", "cuda:1", "cpu", "cpu:0")] == [
        *(torch.device("cuda"), torch.device("cuda", 1), torch.device("cpu"), torch.device("cpu", 0)),
    ]
    for name in ("cuda:abc", "cuda:", "cuda:-1", "cuda:1.0", "auto:0", "tpu"):
        with pytest.raises(UsageError, match=f"unknown device '{name}'; known: auto, cpu, cuda, mps"):
            choose_device(name)
    with pytest.raises(UsageError, match=r"'cuda:2' was asked for, but torch .* finds only cuda:0, cuda:1"):
        choose_device("cuda:2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="finds none") as caught:
        choose_device("cuda:0")
    assert sentence_of(caught.value).endswith("use --device cpu, or auto")
