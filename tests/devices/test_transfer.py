"""Copies to and from a device: nothing on a CPU; beside the kernels, and in order, on a GPU."""

from typing import Any

import numpy as np
import pytest
import torch

from retrieval.devices import transfer
from retrieval.devices.transfer import DeviceClock, begin_upload, fetch, to_device, upload

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
BUSY = 1_000_000_000  # cycles of the GPU's clock: about half a second
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def arrays(seed: int = 0, rows: int = 6) -> dict[str, Any]:
    drawn = np.random.default_rng(seed)
    return {
        "q": drawn.normal(size=(rows, 4)).astype(np.float16),
        "h": drawn.integers(-128, 128, (rows, 3)).astype(np.int8),
    }


def test_on_a_cpu_tensors_are_the_arrays_own_memory() -> None:
    given = arrays()
    for tensors in (upload(given, CPU), begin_upload(given, CPU).tensors()):
        assert {name: tensor.dtype for name, tensor in tensors.items()} == {"q": torch.float16, "h": torch.int8}
        for name, tensor in tensors.items():
            assert tensor.data_ptr() == given[name].ctypes.data
    assert to_device(given["q"], CPU).data_ptr() == given["q"].ctypes.data


def test_on_a_cpu_the_array_fetched_is_the_tensors_own_memory() -> None:
    tensor = torch.arange(12.0).view(3, 4)
    assert fetch(tensor)().ctypes.data == tensor.data_ptr()
    assert np.array_equal(fetch(tensor.T)(), tensor.T.numpy())
    with torch.inference_mode():
        made = torch.ones(3) * 2
    assert fetch(made)().tolist() == [2.0, 2.0, 2.0]


def test_a_clock_on_a_cpu_measures_the_time_until_its_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [5.0]
    monkeypatch.setattr(transfer, "perf_counter", lambda: now[0])
    clock = DeviceClock(CPU)
    now[0] = 5.25
    clock.stop()
    now[0] = 9.0
    assert clock.seconds() == 0.25


@pytest.fixture
def warm() -> None:
    """Do once what waits when it is done for the first time: the context, both streams, kernels, blocks of memory."""
    for rows in (1000, 1 << 18):
        given = arrays(3, rows)
        for name, tensor in upload(given, CUDA).items():
            assert np.array_equal(fetch(tensor)(), given[name])
    made = [torch.full((1 << 20,), 1.0, device=CUDA) for _ in range(8)]  # as many as any test here holds
    several = [fetch(tensor) for tensor in made]
    assert all(fetched().all() for fetched in several)
    clock = DeviceClock(CUDA)
    torch.cuda._sleep(1000)
    clock.stop()
    assert clock.seconds() > 0
    torch.cuda.synchronize()


@pytest.mark.gpu
@needs_cuda
@pytest.mark.usefixtures("warm")
def test_a_batch_behind_another_is_not_counted_twice() -> None:
    clocks = []
    for _ in range(2):
        clocks.append(DeviceClock(CUDA))
        torch.cuda._sleep(BUSY)
        clocks[-1].stop()
    assert not clocks[0]._end.query(), "nothing has waited: the GPU is at the first still"
    first, second = (clock.seconds() for clock in clocks)
    assert 0.1 < second < 1.5 * first


@pytest.mark.gpu
@needs_cuda
@pytest.mark.usefixtures("warm")
def test_what_goes_up_and_comes_down_is_the_same() -> None:
    given = arrays(1, 100_000)
    tensors = upload(given, CUDA)
    for name, array in given.items():
        assert tensors[name].device.type == "cuda"
        assert np.array_equal(fetch(tensors[name])(), array)
        assert np.array_equal(fetch(tensors[name].T)(), array.T)


@pytest.mark.gpu
@needs_cuda
@pytest.mark.usefixtures("warm")
def test_uploads_run_while_the_gpu_computes_and_their_memory_may_change_at_once() -> None:
    given = arrays(2, 1000)
    expected = {name: array.copy() for name, array in given.items()}
    torch.cuda._sleep(BUSY)
    begun = begin_upload(given, CUDA)
    for array in given.values():
        array[...] = 0
    begun._copied.synchronize()
    assert not torch.cuda.current_stream().query()  # still asleep
    for name, tensor in begun.tensors().items():
        assert np.array_equal(fetch(tensor)(), expected[name])


@pytest.mark.gpu
@needs_cuda
@pytest.mark.usefixtures("warm")
def test_memory_of_an_upload_is_not_reused_while_it_is_read() -> None:
    size = 1 << 20
    sums = []
    for number in range(8):
        tensor = to_device(np.full(size, number, np.float32), CUDA)
        torch.cuda._sleep(BUSY // 10)
        sums.append(tensor.sum())  # launched, but not run, when the next upload asks for memory
        del tensor
    assert [int(total) for total in sums] == [number * size for number in range(8)]


@pytest.mark.gpu
@needs_cuda
@pytest.mark.usefixtures("warm")
def test_what_is_fetched_is_what_was_computed_when_it_was_asked_for() -> None:
    made = []
    for number in range(8):
        torch.cuda._sleep(BUSY // 10)
        tensor = torch.full((1 << 20,), float(number), device=CUDA)
        made.append(fetch(tensor))
        del tensor  # its memory is free for the next one, once it has been copied
    assert not torch.cuda.current_stream().query()  # nothing of all that has waited
    for number, fetched in enumerate(made):
        assert np.all(fetched() == number)
