"""The hub: which files a repository has at a commit, and their download. Nothing but the files asked for is fetched."""

import errno
import inspect
import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrieval.errors import DiffSimError, NoSpaceError
from retrieval.files import write_text
from retrieval.models.references import is_commit
from retrieval.models.repositories import Repository
from retrieval.models.weights.reading import first_line
from retrieval.progress import Cancellation, OnProgress, Progress, ignore_progress
from retrieval.text import human_bytes

_LOG = logging.getLogger(__name__)
_OF_THE_DISK = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)
TIMEOUT = 10.0  # seconds until the hub has answered a question about one file


class HubError(Exception):
    """The hub gave no answer, or refused; the text is the reason in one line."""


@dataclass(frozen=True)
class RemoteFile:
    """A file on the hub, its bytes, and its place in the cache where it is there already."""

    name: str
    size: int
    cached: Path | None


def cached_file(source: Repository, name: str) -> Path | None:
    """Return the file ``name`` of the pinned commit in the local hub cache, or None."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(source.repo, name, revision=source.revision)
    return Path(found) if isinstance(found, str) else None


def snapshot_folder(source: Repository) -> Path:
    """Return the folder of the pinned commit in the local hub cache, which may not exist."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{source.repo.replace('/', '--')}" / "snapshots" / source.revision


def known_commit(source: Repository) -> str | None:
    """Return the commit that the local hub cache knows for the revision; None if it knows none."""
    if is_commit(source.revision):
        return source.revision
    try:
        commit = _ref(source).read_text("ascii").strip()
    except (OSError, ValueError):
        return None
    return commit if is_commit(commit) else None


def ask_commit(source: Repository) -> str:
    """Ask the hub which commit a branch or tag is now, and remember it in the local hub cache.

    Raises:
        HubError: the hub gave no answer, or refused.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError

    if is_commit(source.revision):
        return source.revision
    name = next(name for part in source.parts for name in part.wanted()).split(" or ")[0]
    try:
        found = get_hf_file_metadata(hf_hub_url(source.repo, name, revision=source.revision), timeout=TIMEOUT)
    except EntryNotFoundError as error:
        raise HubError(f"its revision {source.revision} has no {name}") from error
    except Exception as error:  # the errors of the HTTP library, which is another one in each version of the hub
        raise HubError(_reason(error)) from error
    if found.commit_hash is None or not is_commit(found.commit_hash):
        raise HubError("the hub names no commit")
    write_text(_ref(source), found.commit_hash)
    return found.commit_hash


def _ref(source: Repository) -> Path:
    return snapshot_folder(source).parent.parent / "refs" / source.revision


def check_room(needed: int) -> None:
    """Raise a NoSpaceError if the disk of the hub's cache has less room than ``needed`` bytes."""
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    free = shutil.disk_usage(next(path for path in (cache, *cache.parents) if path.exists())).free
    if free < needed:
        raise NoSpaceError(f"{human_bytes(needed)} of weights do not fit in {cache}: {human_bytes(free)} are free")


def ask(source: Repository, name: str) -> RemoteFile | None:
    """Ask the hub for a file's size; None if the commit has no such file.

    Raises:
        HubError: the hub gave no answer, or refused.
    """
    from huggingface_hub.errors import EntryNotFoundError

    if (cached := cached_file(source, name)) is not None:
        return RemoteFile(name, cached.stat().st_size, cached)
    try:
        size = ask_size(source, name)
    except EntryNotFoundError:
        return None
    except Exception as error:  # the errors of the HTTP library, which is another one in each version of the hub
        raise HubError(_reason(error)) from error
    return RemoteFile(name, size, None)


def ask_size(source: Repository, name: str) -> int:
    """Ask the hub, whatever the cache holds, for a file's size; any error of the hub's package is raised."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    stated = get_hf_file_metadata(hf_hub_url(source.repo, name, revision=source.revision), timeout=TIMEOUT)
    return stated.size or 0


def download(source: Repository, name: str, on_bytes: Callable[[int], None] | None = None) -> Path:
    """Download one file of the pinned commit into the hub's cache; ``on_bytes`` hears of every new piece.

    A download that was cut off goes on where it stopped.

    Raises:
        HubError: the hub gave no answer, or refused, or the file can't be stored.
    """
    from huggingface_hub import hf_hub_download

    more: dict[str, Any] = {}
    if on_bytes is not None and "tqdm_class" in inspect.signature(hf_hub_download).parameters:
        more["tqdm_class"] = _counter(on_bytes)
    try:
        return Path(hf_hub_download(source.repo, name, revision=source.revision, **more))
    except DiffSimError:  # a cancelled download
        raise
    except Exception as error:  # as above
        raise HubError(_reason(error)) from error


def download_all(
    source: Repository,
    files: Sequence[RemoteFile],
    on_progress: OnProgress = ignore_progress,
    cancel: Cancellation | None = None,
) -> None:
    """Download ``files``; the progress counts bytes, those in the cache included.

    Raises:
        HubError: see :func:`download`.
        CancelledError: everything that is complete is kept.
    """
    total, before = sum(file.size for file in files), 0
    for file in files:
        done = before

        def tell(count: int, name: str = file.name) -> None:
            nonlocal done
            done += count
            if cancel is not None:
                cancel.check()
            on_progress(Progress("download", min(done, total), total, name))

        if file.cached is None:
            tell(0)
            # Without a listener the hub draws its own bar, because gigabytes without any sign of life look like a hang.
            download(source, file.name, None if on_progress is ignore_progress else tell)
            _LOG.info("downloaded %s of %s, %d bytes", file.name, source.repo, file.size)
        before += file.size
        on_progress(Progress("download", before, total, file.name))


def _counter(on_bytes: Callable[[int], None]) -> Any:
    """Return a class that the hub takes for its progress bar; it draws nothing and passes the bytes on."""
    from huggingface_hub.utils.tqdm import tqdm as untyped

    bar: Any = untyped

    class Counter(bar):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            options.pop("name", None)
            super().__init__(*args, **{**options, "disable": True})
            if options.get("initial"):
                on_bytes(int(options["initial"]))  # a download that goes on

        def update(self, n: float | None = 1) -> None:
            on_bytes(int(n or 0))

    return Counter


def _reason(error: BaseException) -> str:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    if isinstance(error, GatedRepoError):
        return "the repository can be read only after its licence was accepted on its page, with a token"
    if getattr(getattr(error, "response", None), "status_code", 0) in (401, 403) and not isinstance(
        error, RevisionNotFoundError | RepositoryNotFoundError
    ):
        return "the hub refuses access to the repository: accept its licence on its page, and log in with a token"
    if isinstance(error, RevisionNotFoundError):
        return "the hub has no such revision"
    if isinstance(error, RepositoryNotFoundError):
        return "the hub has no such repository, or it needs a token"
    if isinstance(error, OSError) and error.errno in _OF_THE_DISK:
        return f"they can't be stored in the hub's cache ({first_line(error)})"
    return f"the hub gave no answer ({first_line(error)})"
