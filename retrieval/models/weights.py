"""Find a model's weights (a local folder, or a pinned revision on the hub), load them, and identify them."""

import hashlib
import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from retrieval.errors import ModelError
from retrieval.models.registry import Description

_LOG = logging.getLogger(__name__)
_SHA256 = re.compile(r"[0-9a-f]{64}")


def weights_folder(description: Description, folder: Path | None, patterns: Sequence[str], offline: bool) -> Path:
    """Return a local folder with the model's files, downloading the pinned revision where none is given.

    Args:
        description: names the hub repository and its revision.
        folder: a local folder of weights, used as it is; None: the hub.
        patterns: the files of the repository that the model needs, as globs.
        offline: use only the hub's cache.

    Raises:
        ModelError: the folder does not exist, or the files are not in the cache and the hub can't be reached.
    """
    if folder is not None:
        if not folder.is_dir():
            raise ModelError(f"{description.name}: the weights folder {folder} does not exist")
        return folder
    from huggingface_hub import snapshot_download

    cached_only = offline or is_offline()
    where = "the hub's cache" if cached_only else "the hub or its cache"
    _LOG.info("%s: taking weights of %s from %s", description.name, description.repo, where)
    try:
        return Path(
            snapshot_download(
                description.repo,
                revision=description.revision,
                allow_patterns=list(patterns),
                local_files_only=cached_only,
            )
        )
    except OSError as error:  # errors of the hub, the network and a full disk are all OSErrors
        why = "they are not in the local hub cache (offline)" if cached_only else f"the hub gave no answer ({error})"
        raise ModelError(
            f"{description.name}: weights of {description.repo} are needed and {why.splitlines()[0]}",
            advice="get-weights",
            megabytes=description.download_mb,
        ) from error


def is_cached(description: Description, filename: str) -> bool:
    """Return whether ``filename`` of the pinned revision is in the local hub cache."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(description.repo, filename, revision=description.revision)
    return isinstance(found, str)


def is_offline() -> bool:
    """Return whether the hub's own environment variables forbid network access."""
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    return any(os.environ.get(name, "").lower() in {"1", "true", "yes", "on"} for name in names)


def require(folder: Path, names: Iterable[str], what: str) -> None:
    """Raise a ModelError that lists the ``names`` (files or folders) missing in ``folder``, under the model's name."""
    missing = [name for name in names if not (folder / name).exists()]
    if missing:
        raise ModelError(f"{folder} holds no {what}: {', '.join(missing)} missing")


def variant_of(folder: Path) -> str | None:
    """Return diffusers' variant ``fp16`` if ``folder`` has the weights in that form only, else None."""
    plain = [p for p in folder.glob("*.safetensors") if ".fp16" not in p.name] + list(folder.glob("*.bin"))
    return "fp16" if not plain and any(folder.glob("*.fp16.safetensors")) else None


def weights_digest(folder: Path, parts: Sequence[str] = ("",)) -> str:
    """Return one SHA-256 over all weight files in ``parts`` of ``folder``, which identifies the model.

    A local copy and the hub's download have the same digest. The hub's cache names files by their SHA-256; other files
    are hashed (about 1.5 GB/s).
    """
    digest = hashlib.sha256()
    for part in parts:
        files = (p for p in (folder / part).iterdir() if p.suffix in {".safetensors", ".bin"})
        for path in sorted(files):
            digest.update(f"{part}/{path.name}:{_file_sha256(path)}\n".encode())
    return digest.hexdigest()


def _file_sha256(path: Path) -> str:
    target = path.resolve()
    if target.parent.name == "blobs" and _SHA256.fullmatch(target.name):
        return target.name
    with target.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_pretrained(kind: Any, folder: Path, what: str, **options: Any) -> Any:
    """Call ``kind.from_pretrained`` on a local folder and check that it held every weight.

    transformers and diffusers fill missing weights with random numbers and merely warn; here they are an error.

    Raises:
        ModelError: the folder can't be loaded, or weights are missing; ``what`` names the model.
    """
    try:
        model, report = kind.from_pretrained(folder, local_files_only=True, output_loading_info=True, **options)
    except (OSError, ValueError, RuntimeError, KeyError, AttributeError, TypeError) as error:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ModelError(f"{what} can't be loaded from {folder}: {first}") from error
    missing = [key for key in report.get("missing_keys", ()) if not key.endswith("position_ids")]
    if missing:
        raise ModelError(
            f"{what} can't be loaded from {folder}: {len(missing)} of its weights are missing there "
            f"({sorted(missing)[0]}, ...); is it another model's folder?"
        )
    return model.eval().requires_grad_(False)


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Hide transformers' loading bars, because this library never prints."""
    from transformers.utils import logging as untyped

    logging: Any = untyped

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
