"""Where weights lie: a local folder, or a pinned revision of a hub repository; and which weights they are."""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from retrieval.errors import ModelError
from retrieval.models.registry import Description

_SHA256 = re.compile(r"[0-9a-f]{64}")


def weights_folder(description: Description, folder: Path | None, patterns: Sequence[str], offline: bool) -> Path:
    """Return a local folder with the model's files, downloading the pinned revision where none is given.

    Args:
        description: names the hub repository and its revision.
        folder: a local folder (``--weights``), taken as it is.
        patterns: the files needed of the repository, as globs.
        offline: use the hub's cache only.

    Raises:
        ModelError: the folder does not exist, or the hub's files are neither cached nor reachable.
    """
    if folder is not None:
        if not folder.is_dir():
            raise ModelError(f"{description.name}: the weights folder {folder} does not exist")
        return folder
    from huggingface_hub import snapshot_download

    cached_only = offline or is_offline()
    try:
        return Path(
            snapshot_download(
                description.repo,
                revision=description.revision,
                allow_patterns=list(patterns),
                local_files_only=cached_only,
            )
        )
    except OSError as error:  # the hub's own errors are OSErrors, and so are a network's and a full disk's
        why = "they are not in the local hub cache (offline)" if cached_only else f"the hub gave no answer ({error})"
        raise ModelError(
            f"{description.name}: weights of {description.repo} are needed and {why.splitlines()[0]}; "
            f"download about {description.download_mb} MB once while online, or name a local folder of them: "
            "--weights FOLDER, or --encoders NAME=FOLDER for an encoder"
        ) from error


def is_cached(description: Description, filename: str) -> bool:
    """Say whether ``filename`` of the pinned revision is in the local hub cache."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(description.repo, filename, revision=description.revision)
    return isinstance(found, str)


def is_offline() -> bool:
    """Say whether the environment forbids the hub, by the variables that users of the hub know."""
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    return any(os.environ.get(name, "").lower() in {"1", "true", "yes", "on"} for name in names)


def require(folder: Path, names: Iterable[str], what: str) -> None:
    """Raise a ModelError that lists which of ``names`` (files or folders) are missing in ``folder``."""
    missing = [name for name in names if not (folder / name).exists()]
    if missing:
        raise ModelError(f"{folder} holds no {what}: {', '.join(missing)} missing")


def variant_of(folder: Path) -> str | None:
    """Return ``fp16`` where that is the only form of the weights in ``folder``, as diffusers' loaders name it."""
    plain = [p for p in folder.glob("*.safetensors") if ".fp16" not in p.name] + list(folder.glob("*.bin"))
    return "fp16" if not plain and any(folder.glob("*.fp16.safetensors")) else None


def weights_digest(folder: Path, parts: Sequence[str] = ("",)) -> str:
    """Return one digest of all weight files in ``parts`` of ``folder``: the identity of a model.

    Where the files came from does not matter, so a local copy and the hub's download are the same model. In the
    hub's cache a file's name is its SHA-256 already; elsewhere the bytes are hashed (about 1.5 GB/s).
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
    """Call ``kind.from_pretrained`` on a local folder and make sure that every weight was found there.

    transformers and diffusers fill what a file lacks with random numbers and merely warn; here that is an error.

    Raises:
        ModelError: the folder can't be loaded, or lacks weights; ``what`` names it.
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
    """Keep transformers' loading bars off the terminal for a while: this library never prints."""
    from transformers.utils import logging as untyped

    logging: Any = untyped

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
