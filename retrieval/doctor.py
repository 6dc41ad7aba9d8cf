"""What is installed here, what is missing, and what does not go together."""

import os
import platform
import shutil
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from retrieval.devices.selection import has_fast_bfloat16
from retrieval.models.registry import EMBEDDERS, EXTRACTORS, Description
from retrieval.version import CREATED_BY

State = Literal["ok", "note", "problem"]
PACKAGES = ("torch", "diffusers", "transformers", "numpy", "zarr", "pyarrow", "pillow")
PROBE_BYTES = 64 << 20


@dataclass(frozen=True)
class Finding:
    """One line of the report; a ``problem`` says what to do."""

    what: str
    state: State
    detail: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def examine(folder: Path) -> list[Finding]:
    """Look at this installation, and at the disk that ``folder`` is on (64 MB are written there and removed)."""
    known: dict[str, Description] = {**EXTRACTORS, **EMBEDDERS}
    return [
        Finding("software", "ok", f"{CREATED_BY}, Python {platform.python_version()} in {sys.prefix}"),
        *(_package(name) for name in PACKAGES),
        _devices(),
        _faiss(),
        _obstore(),
        _torchvision(),
        *(_weights(name, description) for name, description in known.items()),
        _disk(folder),
    ]


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _package(name: str) -> Finding:
    found = _installed(name)
    if found is None:
        return Finding(name, "problem", "is not installed; install diffsim-retrieval[cpu] or [gpu] again")
    return Finding(name, "ok", found)


def _devices() -> Finding:
    import torch

    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count()))
        return Finding("device", "ok", f"cuda: {names}")
    if torch.backends.mps.is_available():
        return Finding("device", "ok", "mps: Apple GPU")
    threads = torch.get_num_threads()
    faster = "; --dtype bfloat16 is over three times as fast here" if has_fast_bfloat16() else ""
    return Finding(
        "device", "note", f"cpu only, {threads} threads; sd15 takes half a minute an image{faster}, mini is fast"
    )


def _faiss() -> Finding:
    flavours = {name: found for name in ("faiss-cpu", "faiss-gpu") if (found := _installed(name))}
    named = ", ".join(f"{name} {found}" for name, found in flavours.items())
    if len(flavours) == 2:
        return Finding("faiss", "problem", f"{named} own the same module: uninstall both, then install one")
    if not flavours and find_spec("faiss") is None:
        return Finding("faiss", "problem", "is not installed; install diffsim-retrieval[cpu] or [gpu]")
    try:
        import faiss
    except (ImportError, RuntimeError) as error:  # faiss-gpu without its CUDA libraries raises RuntimeError
        return Finding("faiss", "problem", f"{named} can't be imported: {error}")
    gpus = faiss.get_num_gpus() if hasattr(faiss, "StandardGpuResources") else 0
    return Finding("faiss", "ok", f"{named or 'from another source'}, {gpus} GPUs in use by it")


def _obstore() -> Finding:
    found = _installed("obstore")
    return Finding("obstore", "ok", found or "absent: an index at s3:// needs the extra s3")


def _torchvision() -> Finding:
    found = _installed("torchvision")
    if found is None:
        return Finding("torchvision", "ok", "absent, and not needed")
    try:
        import torchvision  # noqa: F401
    except Exception as error:  # a build beside another torch fails in ways of its own
        return Finding("torchvision", "problem", f"{found} does not fit this torch ({error}); uninstall it")
    return Finding("torchvision", "ok", found)


def _weights(name: str, description: Description) -> Finding:
    from retrieval.models.weights.finding import are_cached

    what = f"weights of {name}"
    if not description.download_mb:
        return Finding(what, "ok", "none needed, or in the package")
    if are_cached([description]):
        places = " and ".join(f"{each.repo} at {each.revision[:12]}" for each in (description, *description.beside))
        return Finding(what, "ok", f"cached: {places}")
    size = f"{description.download_mb} MB are downloaded when first needed"
    return Finding(what, "note", f"not cached; {size}, or name a local folder ({description.licence})")


def _disk(folder: Path) -> Finding:
    try:
        free = shutil.disk_usage(folder).free
        write, read = _disk_speed(folder)
    except OSError as error:
        return Finding("disk", "problem", f"{folder} can't be written: {error}")
    state: State = "note" if free < 10e9 else "ok"
    detail = f"{free / 1e9:.0f} GB free at {folder}; flushed writing {write:.0f} MB/s, reading {read:.0f} MB/s (cached)"
    return Finding("disk", state, detail)


def _disk_speed(folder: Path) -> tuple[float, float]:
    """Return MB/s of writing with a flush, and of reading the same bytes back."""
    block = os.urandom(1 << 20)
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".diffsim-doctor-") as file:
        start = time.perf_counter()
        for _ in range(PROBE_BYTES >> 20):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        written = time.perf_counter()
        file.seek(0)
        while file.read(1 << 20):
            pass
        return PROBE_BYTES / 1e6 / (written - start), PROBE_BYTES / 1e6 / (time.perf_counter() - written)
