"""Examine an installation: packages, devices, weights and disk."""

import platform
import shutil
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from retrieval.devices.selection import has_fast_bfloat16
from retrieval.errors import DiffSimError
from retrieval.files import check_writable
from retrieval.models.descriptions import Description
from retrieval.models.encoders import EMBEDDERS
from retrieval.models.mini.weights import PACKAGE, VERSION, why_unusable
from retrieval.models.registry import EXTRACTORS
from retrieval.text import human_bytes
from retrieval.version import CREATED_BY

State = Literal["ok", "note", "problem"]
PACKAGES = ("torch", "diffusers", "transformers", "numpy", "zarr", "pyarrow", "pillow")
LITTLE_SPACE = 10e9  # bytes


@dataclass(frozen=True)
class Finding:
    """One line of the report. The detail of a ``problem`` says what to do."""

    what: str
    state: State
    detail: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def examine(folder: Path) -> list[Finding]:
    """Examine this installation, and the disk that ``folder`` is on. Nothing is written."""
    known: dict[str, Description] = {**EXTRACTORS, **EMBEDDERS}
    return [
        Finding("software", "ok", f"{CREATED_BY}, Python {platform.python_version()} in {sys.prefix}"),
        *(_package(name) for name in PACKAGES),
        _devices(),
        _faiss(),
        _obstore(),
        _torchvision(),
        _mini(),
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
        return Finding(name, "problem", "not installed; install diffsim-retrieval[cpu] or [gpu] again")
    return Finding(name, "ok", found)


def _devices() -> Finding:
    import torch

    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count()))
        return Finding("device", "ok", f"cuda: {names}")
    if torch.backends.mps.is_available():
        return Finding("device", "ok", "mps: Apple GPU")
    threads = torch.get_num_threads()
    faster = ", a third of that in bfloat16" if has_fast_bfloat16() else ""
    detail = f"cpu only, {threads} threads: mini is fast, sd15 takes half a minute per image{faster}"
    return Finding("device", "note", detail)


def _faiss() -> Finding:
    flavours = {name: found for name in ("faiss-cpu", "faiss-gpu") if (found := _installed(name))}
    named = ", ".join(f"{name} {found}" for name, found in flavours.items())
    if len(flavours) == 2:
        return Finding("faiss", "problem", f"{named} install the same module: uninstall both, then install one")
    if not flavours and find_spec("faiss") is None:
        return Finding("faiss", "problem", "not installed; install diffsim-retrieval[cpu] or [gpu]")
    try:
        import faiss
    except (ImportError, RuntimeError) as error:  # faiss-gpu without its CUDA libraries raises RuntimeError
        return Finding("faiss", "problem", f"{named} can't be imported: {error}")
    gpus = faiss.get_num_gpus() if hasattr(faiss, "StandardGpuResources") else 0
    return Finding("faiss", "ok", f"{named or 'from another source'}, uses {gpus} GPUs")


def _obstore() -> Finding:
    found = _installed("obstore")
    return Finding("obstore", "ok", found or "not installed; an index at s3:// needs the extra s3")


def _torchvision() -> Finding:
    found = _installed("torchvision")
    if found is None:
        return Finding("torchvision", "ok", "not installed, and not needed")
    try:
        import torchvision  # noqa: F401
    except Exception as error:  # a build for another torch fails in many ways
        return Finding("torchvision", "problem", f"{found} does not fit this torch ({error}); uninstall it")
    return Finding("torchvision", "ok", found)


def _mini() -> Finding:
    problem, what = why_unusable(), f"package of mini, {PACKAGE}"
    if problem is None:
        return Finding(what, "ok", f"{VERSION}, its file has the expected SHA-256")
    return Finding(what, "problem", f"{problem}; until then auto takes cells")


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
        check_writable(folder / "probe")
    except (OSError, DiffSimError) as error:
        return Finding("disk", "problem", f"an index can't be made in {folder}: {error}")
    state: State = "note" if free < LITTLE_SPACE else "ok"
    return Finding("disk", state, f"{human_bytes(free)} free at {folder}")
