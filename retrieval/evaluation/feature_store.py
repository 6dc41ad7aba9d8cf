"""The features of a benchmark's images: each image is encoded once for each role, and kept in memory or on disk.

With a folder, a run that was stopped continues where it was. Features are found by the image's content, the metric's
fingerprint and what else the metric reads for the image, so stale ones are never used.
"""

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from retrieval.devices.memory import available_memory
from retrieval.errors import NoSpaceError
from retrieval.files import write_bytes
from retrieval.images.decoding import DecodeRules, read_image
from retrieval.metrics.base import Features, Metric
from retrieval.metrics.features import join, select
from retrieval.progress import OnProgress, Progress, ignore_progress
from retrieval.types import Role


class FeatureStore:
    """The features of images by path and role, in memory or in the files of a folder."""

    def __init__(self, metric: Metric, rules: DecodeRules, cache: Path | None = None) -> None:
        """Encode with ``metric``; ``cache`` is a folder that outlives the run."""
        self.metric = metric
        self._rules = rules
        self._kept: dict[tuple[Role, Path], Features | Path] = {}
        self._folder = None if cache is None else cache / _fingerprint(metric, rules)

    def _role(self, role: Role) -> Role:
        return "gallery" if self.metric.one_role else role

    def encode(self, paths: Sequence[Path], role: Role, on_progress: OnProgress = ignore_progress) -> None:
        """Encode those of ``paths`` whose features are not there yet.

        Raises:
            ImageError: an image can't be decoded; a benchmark without it would be another benchmark.
            NoSpaceError: memory, or the disk, would not hold the features.
        """
        role = self._role(role)
        missing = [path for path in dict.fromkeys(paths) if (role, path) not in self._kept]
        for start in range(0, len(missing), self.metric.batch_size):
            batch = missing[start : start + self.metric.batch_size]
            self._encode_batch(batch, role)
            if start == 0 and self._folder is None:
                _check_memory(self.bytes_of(batch[0], role) * len(missing))
            on_progress(Progress("images", start + len(batch), len(missing)))

    def _encode_batch(self, paths: Sequence[Path], role: Role) -> None:
        fresh: list[tuple[Path, str, Image.Image]] = []
        for path in paths:
            image, facts = read_image(path, self._rules)
            if not self.recall(path, facts.sha256, role):
                fresh.append((path, facts.sha256, image))
        if not fresh:
            return
        features = self.metric.encode_files([image for _, _, image in fresh], [path for path, _, _ in fresh], role)
        for row, (path, sha256, _) in enumerate(fresh):
            self.put(path, role, select(features, slice(row, row + 1)), sha256)

    def recall(self, path: Path, sha256: str, role: Role) -> bool:
        """Return whether the features of an image are in memory, or in the folder under its content."""
        role = self._role(role)
        file = self._file(path, sha256, role)
        if file is not None and file.is_file():
            self._kept[role, path] = file
        return (role, path) in self._kept

    def put(self, path: Path, role: Role, features: Features, sha256: str) -> None:
        """Keep the features of one image; ``sha256`` identifies its content."""
        role = self._role(role)
        file = self._file(path, sha256, role)
        if file is None:
            self._kept[role, path] = {name: tensor.clone() for name, tensor in features.items()}
        else:
            _save(features, file)
            self._kept[role, path] = file

    def forget(self) -> None:
        """Delete all features, also the files in the folder."""
        self._kept.clear()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _file(self, path: Path, sha256: str, role: Role) -> Path | None:
        if self._folder is None:
            return None
        key = self.metric.file_key(path)
        name = hashlib.sha256(f"{sha256} {key}".encode()).hexdigest() if key else sha256
        return self._folder / role / f"{name}.safetensors"

    def get(self, paths: Sequence[Path], role: Role) -> Features:
        """Return the features of encoded images, in the order of ``paths``."""
        kept = [self._kept[self._role(role), path] for path in paths]
        return join([_load(one) if isinstance(one, Path) else one for one in kept])

    def bytes_of(self, path: Path, role: Role) -> int:
        """Return the bytes that the features of one encoded image take in memory."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.get([path], role).values())


def _check_memory(needed: int) -> None:
    free = available_memory()
    if free is not None and needed > 0.9 * free:
        raise NoSpaceError(
            f"the features need about {needed / 1e9:.1f} GB of memory and {free / 1e9:.1f} GB are free",
            advice="keep-features-on-disk",
        )


def _fingerprint(metric: Metric, rules: DecodeRules) -> str:
    settings = json.dumps([metric.fingerprint(), rules.fingerprint()], sort_keys=True)
    return hashlib.sha256(settings.encode()).hexdigest()[:16]


def _load(file: Path) -> Features:
    from safetensors.torch import load_file

    loaded: Features = load_file(file)
    return loaded


def _save(features: Features, file: Path) -> None:
    from safetensors.torch import save

    write_bytes(file, save({name: tensor.contiguous() for name, tensor in features.items()}))
