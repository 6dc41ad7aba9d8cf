"""Estimate the disk and memory that a build or fill needs, before it computes anything.

Disk bytes follow from the shapes of tensors and vectors; compressed tensors take fewer. Memory is approximate.
"""

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

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
from retrieval.encoding.sharing import stored_names
from retrieval.encoding.stored_tensors import projections_of
from retrieval.errors import NoSpaceError
from retrieval.indexing.missing import Missing
from retrieval.indexing.reports import Estimate
from retrieval.models.modes import Outputs
from retrieval.models.protocols import HiddenExtractor
from retrieval.settings import BuildSettings, ModelSettings
from retrieval.text import human_bytes

LIBRARIES_BYTES = 300_000_000  # memory of Python, torch and the other libraries, approximately
CATALOGUE_BYTES = 300  # an image's row of the catalogue and its share of other files, approximately

Sizes = Mapping[str, Mapping[str, int]]
"""Bytes of one image's tensors, by codec and mode; without the codecs that the model does not support."""

Advice = tuple[str, dict[str, Any]]
"""A word for what would help, and its facts; see :class:`retrieval.errors.DiffSimError`."""


@dataclass(frozen=True)
class Workload:
    """The images of a build or fill."""

    images: int  # new and changed ones
    modes: tuple[str, ...]  # they get tensors of these modes
    names: Mapping[str, str] | None = None  # by mode: under which its tensors are stored; None: as in a new index
    missing: Missing = field(default_factory=Missing)


@dataclass(frozen=True)
class BytesPerImage:
    """Disk bytes of one image, for every choice of codec, modes and encoders."""

    tensors: Sizes
    names: Mapping[str, Mapping[str, str]]  # by codec and mode: modes with one name store the same tensors, once
    vectors: Mapping[str, int]  # by encoder
    projections: Mapping[str, tuple[str, int]]  # by mode: a key that modes with the same projection share, and bytes

    @property
    def beside(self) -> int:
        """Bytes of one image's vectors and its row of the catalogue."""
        return sum(self.vectors.values()) + CATALOGUE_BYTES

    def completing(self, codec: str, missing: Missing, held: Callable[[int], int]) -> int:
        """Return the bytes of the missing outputs; ``held`` says how many of n images this disk holds at a time."""
        bytes_needed = 0
        for job in missing.jobs:
            tensors = sum(self.by_name(codec, job.outputs.modes).values())
            vectors = sum(self.vectors[encoder] for encoder in job.outputs.encoders)
            bytes_needed += held(len(job.rows)) * (tensors + vectors)
        return bytes_needed

    def by_name(self, codec: str, modes: Iterable[str]) -> dict[str, int]:
        """Return the bytes of one image's tensors of ``modes`` by the name that they are stored under."""
        return {self.names[codec][mode]: self.tensors[codec][mode] for mode in modes}

    def total(self, codec: str, modes: tuple[str, ...], images: int) -> int:
        """Return the bytes of ``images`` images, projections included."""
        once = dict(self.projections[mode] for mode in modes) if CODECS[codec].hidden else {}
        return images * (sum(self.by_name(codec, modes).values()) + self.beside) + sum(once.values())


def measure_bytes_per_image(models: LoadedModels) -> BytesPerImage:
    """Find one image's bytes by codec and mode. The network runs only where it does not declare its shapes.

    Raises:
        UsageError: the model does not support the codec.
    """
    projections_of(models)
    blank = models.prepare(Image.new("RGB", (64, 64)))
    found = models.encode([blank], "gallery", Outputs((), tuple(models.embedders))).vectors
    vectors = {name: 2 * vector.size for name, vector in found.items()}  # stored as float16
    names = {name: stored_names(models.targets, codec) for name, codec in CODECS.items()}
    extractor = models.extractor
    if not isinstance(extractor, HiddenExtractor):
        return BytesPerImage(_sizes_of_qkv(models, blank), names, vectors, {})
    sizes, projections = _sizes_of_hidden(models, extractor)
    return BytesPerImage(sizes, names, vectors, projections)


def _sizes_of_hidden(models: LoadedModels, extractor: HiddenExtractor) -> tuple[Sizes, dict[str, tuple[str, int]]]:
    """Return bytes by codec and mode, and those of the projections, from the shapes that the extractor declares."""
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
    return sizes, projections


def _sizes_of_qkv(models: LoadedModels, blank: ModelInputs) -> Sizes:
    tensors = models.encode([blank], "gallery").tensors
    plain = [codec for codec in CODECS.values() if not codec.hidden]
    return {codec.name: {mode: codec.bytes_of(to_floats(qkv)) for mode, qkv in tensors.items()} for codec in plain}


def estimate_workload(
    models: LoadedModels, settings: ModelSettings, run: BuildSettings, root: Path, workload: Workload
) -> Estimate:
    """Estimate disk and memory for ``workload``.

    If the disk is too small, the advice names what would fit. An index at ``root`` keeps its codec and modes, so
    there the advice is about a new one.
    """
    size, codec, modes = measure_bytes_per_image(models), models.codec.name, workload.modes
    if workload.names is not None:
        size = replace(size, names={**size.names, codec: workload.names})
    batch = min(batch_size(settings, run), max(1, workload.images + len(workload.missing)))
    held = partial(held_locally, root, segment_rows=run.segment_rows)
    local = held(workload.images)
    needed = size.total(codec, modes, local) + size.completing(codec, workload.missing, held)
    free = shutil.disk_usage(_existing(root)).free
    device = choose_device(run.device)
    advice: Advice = ("", {})
    if needed > free:
        new_images_fit = workload.missing and size.total(codec, modes, local) <= free
        choices = _choices(size, codec, modes, local, " in a new index" if is_index(root) else "")
        advice = _advice(advice="less-to-complete") if new_images_fit else _first_fitting(choices, free)
    return Estimate(
        images=workload.images,
        codec=codec,
        bytes_by_mode=size.by_name(codec, modes),
        shared={mode: name for mode, name in size.names[codec].items() if mode in modes and mode != name},
        bytes_beside=size.beside,
        to_complete=len(workload.missing),
        disk_bytes=size.total(codec, modes, workload.images) + size.completing(codec, workload.missing, int),
        local_bytes=needed,
        free_disk_bytes=free,
        models_bytes=models_memory(models, device),
        batch=batch,
        batch_bytes=batch * working_bytes(settings, device),
        free_memory_bytes=available_memory(device),
        advice=advice[0],
        advice_facts=advice[1],
    )


def models_memory(models: LoadedModels, device: torch.device) -> int | None:
    """Return the bytes that this process will hold on ``device`` after using its models; None if unknown.

    On a CPU, weights become resident only when they are used. The size of the weights is a lower bound there.
    """
    resident = resident_memory(device)
    if resident is None or device.type != "cpu":
        return resident
    return max(resident, LIBRARIES_BYTES + sum(map(weights_bytes, (models.extractor, *models.embedders.values()))))


def weights_bytes(model: object) -> int:
    """Return the bytes of all networks among a model's attributes; shared tensors count once."""
    networks = [value for value in vars(model).values() if isinstance(value, nn.Module)]
    tensors = {t.data_ptr(): t.nbytes for network in networks for t in (*network.parameters(), *network.buffers())}
    return sum(tensors.values())


def find_problem(estimate: Estimate, root: Path) -> NoSpaceError | None:
    """Return the error for a disk or a memory that is too small; None where both are large enough."""
    return disk_problem(estimate, root) or memory_problem(estimate)


def disk_problem(estimate: Estimate, root: Path) -> NoSpaceError | None:
    """Return the error for a disk that is too small; its advice names what would fit."""
    if estimate.local_bytes <= estimate.free_disk_bytes:
        return None
    an_image = estimate.disk_bytes / (estimate.images + estimate.to_complete)
    return NoSpaceError(
        f"{root} would grow by {human_bytes(estimate.local_bytes)} ({human_bytes(an_image)} an image) and "
        f"{human_bytes(estimate.free_disk_bytes)} are free",
        advice=estimate.advice,
        **estimate.advice_facts,
    )


def memory_problem(estimate: Estimate) -> NoSpaceError | None:
    """Return the error for a memory that is too small for a batch; None where it is large enough or unknown."""
    free = estimate.free_memory_bytes
    if free is None or estimate.batch_bytes <= free:
        return None
    fitting = free // (estimate.batch_bytes // estimate.batch)
    advice = _advice(advice="smaller-batch", images=fitting) if fitting else _advice(advice="smaller-images")
    return NoSpaceError(
        f"a batch of {estimate.batch} images needs about {human_bytes(estimate.batch_bytes)} of memory beside the "
        f"models and {human_bytes(free)} are free",
        advice=advice[0],
        **advice[1],
    )


def _advice(*, advice: str, **facts: Any) -> Advice:
    return advice, facts


def _first_fitting(choices: Iterable[tuple[int, Advice]], free: int) -> Advice:
    """Return the first choice that fits in ``free`` bytes, or the last one."""
    for needed, advice in choices:  # noqa: B007 (the last advice is used after the loop)
        if needed <= free:
            break
    return advice


def _choices(
    size: BytesPerImage, codec: str, modes: tuple[str, ...], images: int, where: str
) -> Iterator[tuple[int, Advice]]:
    """Yield bytes and advice of other choices: a smaller codec, one mode, both, vectors only; last, that none fits."""
    smaller = _smaller_codecs(size.tensors, codec)

    def with_size(needed: int, advice: Advice) -> tuple[int, Advice]:
        word, facts = advice
        return needed, (word, {**facts, "where": where, "size": human_bytes(needed)})

    for name in smaller:
        yield with_size(size.total(name, modes, images), _advice(advice="choose-codec", codec=name))
    for name in (codec, *smaller):
        for mode in modes if len(size.by_name(name, modes)) > 1 else ():  # one of several that share saves nothing
            yield with_size(size.total(name, (mode,), images), _one_mode(mode, name, codec))
    if modes:
        yield with_size(size.total(codec, (), images), _advice(advice="choose-lazy"))
    smallest = min(size.tensors, key=lambda name: size.total(name, modes, images))
    yield with_size(size.total(smallest, modes, images), _advice(advice="no-codec-fits", codec=smallest))


def _smaller_codecs(tensors: Sizes, codec: str) -> list[str]:
    return [name for name in tensors if sum(tensors[name].values()) < sum(tensors[codec].values())]


def _one_mode(mode: str, codec: str, asked: str) -> Advice:
    if codec == asked:
        return _advice(advice="choose-mode", mode=mode)
    return _advice(advice="choose-codec-and-mode", codec=codec, mode=mode)


def _existing(path: Path) -> Path:
    """Return ``path`` or the nearest folder above it that exists."""
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
