"""Free memory: the machine's, and no more than the limit of the container that the process runs in."""

import errno
import mmap
from pathlib import Path

import psutil
import pytest
import torch

from cli.advice import sentence_of
from retrieval.devices import memory
from retrieval.devices.cgroups import memory_left
from retrieval.devices.memory import (
    available_memory,
    is_memory_full,
    raising_memory_full,
    resident_memory,
    tried_twice,
)
from retrieval.errors import MemoryFullError

CPU = torch.device("cpu")
V2 = ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file")
V1 = ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def write_group(
    root: Path, names: tuple[str, str, str, str], path: str, limit: int | str, used: int, cached: int
) -> None:
    mount, limit_file, usage_file, line = names
    folder = root / mount / path
    folder.mkdir(parents=True, exist_ok=True)
    (folder / limit_file).write_text(f"{limit}\n")
    (folder / usage_file).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 1\n{line} {cached}\nactive_file 5\n")


def write_own(root: Path, lines: str) -> None:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(lines)


def test_a_limit_of_version_2_leaves_the_limit_minus_the_usage_without_caches(tmp_path: Path) -> None:
    write_own(tmp_path, "0::/box\n")
    write_group(tmp_path, V2, "box", 1000, 700, 300)
    assert memory_left(tmp_path) == 600


def test_a_limit_of_version_1_is_read_from_the_memory_controller(tmp_path: Path) -> None:
    write_own(tmp_path, "5:cpu:/box\n4:memory:/box\n0::/\n")
    write_group(tmp_path, V1, "box", 2000, 500, 100)
    assert memory_left(tmp_path) == 1600


def test_the_tightest_group_around_the_process_counts(tmp_path: Path) -> None:
    write_own(tmp_path, "0::/outer/inner\n")
    write_group(tmp_path, V2, "outer/inner", "max", 10, 0)
    write_group(tmp_path, V2, "outer", 1000, 900, 0)
    assert memory_left(tmp_path) == 100


def test_a_container_that_hides_its_path_is_read_at_the_mount(tmp_path: Path) -> None:
    write_own(tmp_path, "4:memory:/docker/0123\n")
    write_group(tmp_path, V1, "", 4000, 1000, 0)
    assert memory_left(tmp_path) == 3000


def test_a_group_above_its_limit_has_nothing_left(tmp_path: Path) -> None:
    write_own(tmp_path, "0::/\n")
    write_group(tmp_path, V2, "", 1000, 1200, 0)
    assert memory_left(tmp_path) == 0


def test_without_groups_or_limits_there_is_no_answer(tmp_path: Path) -> None:
    assert memory_left(tmp_path) is None
    write_own(tmp_path, "0::/\n")
    write_group(tmp_path, V2, "", "max", 10, 0)
    assert memory_left(tmp_path) is None


def test_available_memory_is_the_smaller_of_the_machines_and_the_containers(monkeypatch: pytest.MonkeyPatch) -> None:
    free = available_memory()
    assert free is not None
    assert 0 < free <= psutil.virtual_memory().total
    monkeypatch.setattr(memory, "memory_left", lambda: 123)
    assert available_memory(CPU) == 123


def test_resident_memory_grows_with_what_the_process_holds() -> None:
    before = resident_memory(CPU)
    with mmap.mmap(-1, 32 << 20) as pages:  # new pages, unlike a tensor, which may reuse freed memory
        for at in range(0, len(pages), mmap.PAGESIZE):
            pages[at] = 1
        after = resident_memory(CPU)
    assert before is not None
    assert after is not None
    assert after - before > (16 << 20)


@pytest.mark.parametrize(("images", "remedy"), [(4, "choose fewer than 4 with --batch-size"), (1, "--image-size")])
def test_full_memory_is_an_error_with_a_remedy(images: int, remedy: str) -> None:
    def fail() -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    with (
        pytest.raises(MemoryFullError, match=f"cpu does not hold {images} images") as caught,
        raising_memory_full(images, CPU),
    ):
        fail()
    assert remedy in sentence_of(caught.value)
    assert "--" not in str(caught.value)
    with pytest.raises(RuntimeError, match="another"), raising_memory_full(images, CPU):
        raise RuntimeError("another")


FULL = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 256.00 MiB"),
    RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB, max allowed: 9.07 GB)."),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
    RuntimeError("std::bad_alloc"),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    MemoryFullError("full"),
]
OTHER = [
    RuntimeError("CUDA error: device-side assert triggered"),
    RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
    OSError(errno.ENOSPC, "No space left on device"),
    ValueError("out of memory"),
]


@pytest.mark.parametrize("error", FULL, ids=lambda error: f"{type(error).__name__} {error}"[:40])
def test_full_memory_is_known_by_the_words_of_every_library(error: Exception) -> None:
    tries: list[str] = []

    def work() -> str:
        tries.append("work")
        if len(tries) == 1:
            raise error
        return "done"

    assert is_memory_full(error)
    assert tried_twice(work, lambda: tries.append("room"), CPU) == "done"
    assert tries == ["work", "room", "work"]
    with pytest.raises(MemoryFullError) as caught, raising_memory_full(3, CPU):
        raise error
    assert caught.value.exit_code == 5


def test_memory_that_stays_full_is_one_sentence() -> None:
    def work() -> None:
        raise MemoryError

    with pytest.raises(MemoryFullError, match="cpu does not hold what a search computes") as caught:
        tried_twice(work, int, CPU)
    assert "fewer queries at once" in sentence_of(caught.value)


@pytest.mark.parametrize("error", OTHER, ids=str)
def test_other_errors_are_not_tried_again(error: Exception) -> None:
    tries: list[int] = []

    def work() -> None:
        tries.append(1)
        raise error

    with pytest.raises(type(error)) as caught:
        tried_twice(work, int, CPU)
    assert caught.value is error
    assert len(tries) == 1
