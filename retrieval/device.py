"""Devices and dtypes: one table, read when a model is loaded, nothing set at import."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

from retrieval.errors import MemoryFullError, UsageError
from retrieval.vocabulary import DeviceName, DtypeName

if TYPE_CHECKING:
    import torch

# float16 on CUDA is what the published code ran; on the CPU it is slow, and on mps unproven.
DEFAULT_DTYPES: dict[str, str] = {"cpu": "float32", "cuda": "float16", "mps": "float32"}


def choose_device(name: str) -> "torch.device":
    """Return the device called ``name``; ``auto`` takes cuda, then mps, then the CPU. ``cuda:1`` is the second GPU.

    Raises:
        UsageError: an unknown name, or a device that this machine lacks.
    """
    import torch

    kind, colon, number = name.partition(":")
    if kind not in get_args(DeviceName) or (colon and (kind == "auto" or not number.isdecimal())):
        raise UsageError(f"unknown device '{name}'; known: {', '.join(get_args(DeviceName))}, and numbers as in cuda:0")
    has = {
        "cpu": 1,
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
    }
    if kind == "auto":
        return torch.device(next(d for d in ("cuda", "mps", "cpu") if has[d]))
    if not has[kind]:
        found = f"torch {torch.__version__} finds none on this machine"
        raise UsageError(f"device '{name}' was asked for, but {found}; use --device cpu, or auto")
    if colon and int(number) >= has[kind]:
        there = ", ".join(f"{kind}:{n}" for n in range(has[kind]))
        raise UsageError(f"device '{name}' was asked for, but torch {torch.__version__} finds only {there}")
    return torch.device(kind, int(number)) if colon else torch.device(kind)


def choose_dtype(name: str, device: "torch.device") -> "torch.dtype":
    """Return the dtype of a model's arithmetic; ``auto`` is the device's entry in :data:`DEFAULT_DTYPES`."""
    import torch

    if name not in get_args(DtypeName):
        raise UsageError(f"unknown dtype '{name}'; known: {', '.join(get_args(DtypeName))}")
    dtype = getattr(torch, DEFAULT_DTYPES[device.type] if name == "auto" else name)
    assert isinstance(dtype, torch.dtype)
    return dtype


def place(model: Any, device: "torch.device", dtype: "torch.dtype") -> Any:
    """Move a convolutional network to ``device``, laid out as its ``dtype`` runs fastest there.

    16 bits are multiplied channels last: SD 1.5 in bfloat16 on a CPU with AMX takes 6.9 s an image instead of 10.4 s.
    In float32 that layout costs a tenth (27.1 s instead of 24.2 s).
    """
    import torch

    if dtype == torch.float32:
        return model.to(device)
    return model.to(device, memory_format=torch.channels_last)


def has_fast_bfloat16() -> bool:
    """Say whether this machine's CPU multiplies bfloat16 in hardware."""
    import torch

    return bool(getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)())


def dtype_name(dtype: "torch.dtype") -> DtypeName:
    """Return the word for ``dtype``."""
    name = str(dtype).removeprefix("torch.")
    return cast(DtypeName, name)


def available_memory(device: "torch.device | None" = None) -> int | None:
    """Return the bytes that ``device`` (the CPU by default) can still give; None where the system does not say.

    Of the machine's own memory, what caches hold counts as free.
    """
    import torch

    if device is not None and device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # by torch, for its next use
        return int(torch.cuda.mem_get_info(device)[0]) + kept
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None)


def is_memory_full(error: RuntimeError) -> bool:
    """Say whether torch could not get the memory that it needs, on whatever device."""
    import torch

    # A CPU's allocator has no type of its own.
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


@contextmanager
def told_of_memory(images: int, device: "torch.device") -> Iterator[None]:
    """Say what helps where the memory of ``device`` does not hold ``images`` that are computed at a time.

    Raises:
        MemoryFullError: torch could not get the memory that the work inside needs.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_memory_full(error):
            raise
        free = available_memory(device)
        left = "" if free is None else f" ({free / 1e9:.1f} GB are free)"
        several = f"choose less than {images} with --batch-size"
        advice = several if images > 1 else "choose a smaller --image-size, another --model or --device cpu"
        raise MemoryFullError(
            f"the memory of {device} does not hold {images} images computed at a time{left}; {advice}"
        ) from error


def resident_memory(device: "torch.device") -> int | None:
    """Return the bytes that this process holds on ``device``; None where the system does not say."""
    import torch

    if device.type == "cuda":
        return int(torch.cuda.memory_allocated(device))
    try:
        lines = Path("/proc/self/status").read_text("ascii").splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmRSS:")), None)
