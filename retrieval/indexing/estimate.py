"""What a build or a fill takes, before it computes: bytes on disk exactly, from the tensors' shapes; memory roughly."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from torch import nn

from index_store.codecs import CODECS, Arrays
from index_store.locate import is_index
from index_store.remote.mirror import held_locally
from retrieval.devices.memory import available_memory, resident_memory
from retrieval.devices.selection import choose_device
from retrieval.encoding.batches import batch_size, working_bytes
from retrieval.encoding.loaded_models import LoadedModels, ModelInputs, to_floats
from retrieval.errors import NoSpaceError
from retrieval.indexing.missing import Missing
from retrieval.indexing.reports import Estimate
from retrieval.models.modes import Outputs
from retrieval.models.protocols import HiddenExtractor
from retrieval.settings import BuildSettings, ModelSettings
from retrieval.text import _size

LIBRARIES_BYTES = 300_000_000  # of memory: Python, torch and what else a build loads, about
CATALOGUE_BYTES = 300  # a row of the catalogue and its share of everything else, about
LESS_TO_COMPLETE = "add or fill fewer modes (--modes), or let searches compute what they need (--attention lazy)"

Sizes = Mapping[str, Mapping[str, int]]
"""Bytes of one image's tensors, by codec and mode; codecs that the model can't serve are left out."""


@dataclass(frozen=True)
class Workload:
    """What is to be computed."""

    images: int  # new and changed ones
    modes: tuple[str, ...]  # whose tensors they get
    backlog: Missing = field(default_factory=Missing)


@dataclass(frozen=True)
class BytesPerImage:
    """How one image's bytes depend on what is chosen."""

    tensors: Sizes
    vectors: Mapping[str, int]  # by encoder
    projections: Mapping[str, tuple[str, int]]  # by mode: its name, which modes may share, and its bytes

    @property
    def beside(self) -> int:
        """Bytes of one image's vectors and its row of the catalogue."""
        return sum(self.vectors.values()) + CATALOGUE_BYTES

    def completing(self, codec: str, backlog: Missing, held: Callable[[int], int]) -> int:
        """Return the bytes that items lack; of so many images those of ``held`` lie on the disk at a time."""
        parts = [(len(job.rows), job.need) for job in backlog.jobs]
        parts += [(len(copy.rows), Outputs((copy.mode,))) for copy in backlog.copies]
        tensors = self.tensors[codec]
        return sum(
            held(images) * (sum(tensors[mode] for mode in need.modes) + sum(self.vectors[e] for e in need.encoders))
            for images, need in parts
        )

    def total(self, codec: str, modes: tuple[str, ...], images: int) -> int:
        """Return the bytes that ``images`` take, projections included."""
        once = dict(self.projections[mode] for mode in modes) if CODECS[codec].hidden else {}
        return images * (sum(self.tensors[codec][mode] for mode in modes) + self.beside) + sum(once.values())


def measure_bytes_per_image(models: LoadedModels) -> BytesPerImage:
    """Find one image's bytes by codec and mode; the attention network is not run where it says its shapes."""
    models.projections()  # a codec that the model can't serve is told here
    blank = models.prepare(Image.new("RGB", (64, 64)))
    vectors = {name: 2 * vector.size for name, vector in models.embed([blank]).items()}
    extractor = models.extractor
    if not isinstance(extractor, HiddenExtractor):
        return BytesPerImage(_sizes_of_qkv(models, blank), vectors, {})
    hidden: dict[str, Arrays] = {}
    plain: dict[str, Arrays] = {}
    projections: dict[str, tuple[str, int]] = {}
    for mode, target in models.targets.items():
        zeros, projection = torch.zeros(1, *extractor.hidden_shape(target)), extractor.projection(target)
        hidden[mode], plain[mode] = {"h": zeros.numpy()}, to_floats(projection.to("cpu")(zeros))
        size = sum(array.nbytes for array in projection.arrays().values())
        projections[mode] = (f"{target.layer} {target.values}", size)
    sizes = {
        name: {mode: codec.bytes_of(arrays) for mode, arrays in (hidden if codec.hidden else plain).items()}
        for name, codec in CODECS.items()
    }
    return BytesPerImage(sizes, vectors, projections)


def _sizes_of_qkv(models: LoadedModels, blank: ModelInputs) -> Sizes:
    tensors = models.encode([blank], "gallery").tensors
    plain = [codec for codec in CODECS.values() if not codec.hidden]
    return {codec.name: {mode: codec.bytes_of(to_floats(qkv)) for mode, qkv in tensors.items()} for codec in plain}


def estimate_workload(
    models: LoadedModels, settings: ModelSettings, run: BuildSettings, root: Path, load: Workload
) -> Estimate:
    """Estimate what ``load`` takes, nothing of which has been computed.

    Where an index is at ``root``, its codec and modes are settled, and the advice is about another one.
    """
    room, codec, modes = measure_bytes_per_image(models), models.codec.name, load.modes
    batch = min(batch_size(settings, run), max(1, load.images + len(load.backlog)))
    held = partial(held_locally, root, segment_rows=run.segment_rows)
    local = held(load.images)
    needed = room.total(codec, modes, local) + room.completing(codec, load.backlog, held)
    free = shutil.disk_usage(_existing(root)).free
    device = choose_device(run.device)
    advice = ""
    if needed > free:
        fits_alone = load.backlog and room.total(codec, modes, local) <= free
        advice = LESS_TO_COMPLETE if fits_alone else _advice(room, codec, modes, local, free, is_index(root))
    return Estimate(
        images=load.images,
        codec=codec,
        bytes_by_mode={mode: room.tensors[codec][mode] for mode in modes},
        bytes_beside=room.beside,
        to_complete=len(load.backlog),
        disk_bytes=room.total(codec, modes, load.images) + room.completing(codec, load.backlog, int),
        local_bytes=needed,
        free_disk_bytes=free,
        models_bytes=models_memory(models, device),
        batch=batch,
        batch_bytes=batch * working_bytes(settings, device),
        free_memory_bytes=available_memory(device),
        advice=advice,
    )


def models_memory(models: LoadedModels, device: torch.device) -> int | None:
    """Return what the process holds on ``device`` once it has used its models; None where the system does not say.

    On a CPU weights are pages of a file until they are used, so what is resident by now is no more than a lower bound.
    """
    resident = resident_memory(device)
    if resident is None or device.type != "cpu":
        return resident
    return max(resident, LIBRARIES_BYTES + sum(map(weights_bytes, (models.extractor, *models.embedders.values()))))


def weights_bytes(model: object) -> int:
    """Return the bytes of all networks among a model's attributes."""
    networks = [value for value in vars(model).values() if isinstance(value, nn.Module)]
    tensors = {t.data_ptr(): t.nbytes for network in networks for t in (*network.parameters(), *network.buffers())}
    return sum(tensors.values())


def check_estimate(estimate: Estimate, root: Path) -> None:
    """Refuse what the machine can't hold.

    Raises:
        NoSpaceError: the message says what would fit.
    """
    problem = disk_problem(estimate, root) or memory_problem(estimate)
    if problem:
        raise NoSpaceError(problem)


def disk_problem(estimate: Estimate, root: Path) -> str:
    """Say why the disk can't hold it, and what would fit; empty where it can."""
    if estimate.local_bytes <= estimate.free_disk_bytes:
        return ""
    an_image = estimate.disk_bytes / (estimate.images + estimate.to_complete) / 1e6
    return (
        f"{root} would grow by {_size(estimate.local_bytes)} ({an_image:.2f} MB an image) and "
        f"{_size(estimate.free_disk_bytes)} are free; {estimate.advice}"
    )


def memory_problem(estimate: Estimate) -> str:
    """Say why the memory can't hold a batch, and what would fit; empty where it can, or nobody knows."""
    free = estimate.free_memory_bytes
    if free is None or estimate.batch_bytes <= free:
        return ""
    fitting = free // (estimate.batch_bytes // estimate.batch)
    advice = f"--batch-size {fitting} would fit" if fitting else "choose a smaller --image-size or another model"
    return (
        f"a batch of {estimate.batch} images needs about {_size(estimate.batch_bytes)} of memory beside the models "
        f"and {_size(free)} are free; {advice}"
    )


def _advice(room: BytesPerImage, codec: str, modes: tuple[str, ...], images: int, free: int, settled: bool) -> str:
    """Name the first choice that fits: another codec, else fewer modes, else neither."""
    where = " in a new index" if settled else ""
    for what, needed in _choices(room, codec, modes, images):
        if needed <= free:
            return f"{what}{where} would fit ({_size(needed)}); or name another disk (--index)"
    smallest = min(room.tensors, key=lambda name: room.total(name, modes, images))
    least = _size(room.total(smallest, modes, images))
    return f"even --codec {smallest} needs {least}: index fewer images or modes (--modes), or name another disk"


def _choices(room: BytesPerImage, codec: str, modes: tuple[str, ...], images: int) -> Iterator[tuple[str, int]]:
    smaller = [name for name in room.tensors if sum(room.tensors[name].values()) < sum(room.tensors[codec].values())]
    for name in smaller:
        yield f"--codec {name}", room.total(name, modes, images)
    for name in (codec, *smaller):
        for mode in modes if len(modes) > 1 else ():
            chosen = f"--modes {mode}" if name == codec else f"--codec {name} --modes {mode}"
            yield chosen, room.total(name, (mode,), images)
    if modes:
        yield "--attention lazy", room.total(codec, (), images)


def _existing(path: Path) -> Path:
    """Return ``path`` or the nearest folder above it that exists."""
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
