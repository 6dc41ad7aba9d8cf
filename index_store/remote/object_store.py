"""Objects in a bucket: read, read in ranges, write, write under a condition, list, delete. Knows nothing of indexes.

Credentials, region and endpoint come from the usual ``AWS_*`` variables. Every failure is a RemoteStoreError that names
the object; a missing object is a FileNotFoundError, or None.
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from index_store.errors import IndexCorruptError, RemoteStoreError, UsageError
from index_store.files import open_regular

if TYPE_CHECKING:
    from obstore import PutMode, UpdateVersion
    from obstore.store import ClientConfig, RetryConfig, S3Config, S3Store

SCHEME = "s3"
OBJECT = f"{SCHEME}:"  # begins the names of objects in a bucket
ENDPOINT_VARIABLE = "AWS_ENDPOINT_URL"
RETRIES, RETRY_TIMEOUT = 4, timedelta(seconds=60)
DELETED_AT_ONCE = 500
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_BUCKET = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{1,254}")
_SECRET = re.compile(r"(?<=://)[^/?#\s]*@|[?#]\S*")  # a URL's user name and password, and its query
MOST_OBJECT = 1 << 32  # bytes of an object that is read whole: no small file of an index is larger


@dataclass(frozen=True)
class Version:
    """Identifies one content of an object; a conditional write replaces only that content."""

    e_tag: str | None
    version: str | None = None


@dataclass(frozen=True)
class StoredObject:
    """An object's content and version when it was read."""

    data: bytes
    version: Version
    modified: datetime  # by the store's clock


@dataclass(frozen=True)
class Entry:
    """An object in a list."""

    key: str
    size: int  # bytes
    modified: datetime  # by the store's clock


class ObjectStore:
    """The objects below one URL; a ``key`` is the rest of an object's URL. Safe in many threads."""

    def __init__(self, url: str, store: "S3Store") -> None:
        """Take an opened store; see :func:`open_store`."""
        self.url, self._store = url, store

    def where(self, key: str) -> str:
        """Return the URL of an object."""
        return f"{self.url}/{key}"

    def get(self, key: str, before: Callable[[int], None] | None = None) -> StoredObject | None:
        """Read an object; None if it does not exist. ``before`` gets its size in bytes first, and may raise.

        Raises:
            IndexCorruptError: it has more than MOST_OBJECT bytes, and nobody else looks at its size.
        """
        with self._reporting(key):
            try:
                found = self._store.get(key)
                meta = found.meta
                if before is not None:
                    before(meta["size"])
                elif meta["size"] > MOST_OBJECT:
                    raise IndexCorruptError(f"the index is damaged: {self.where(key)} has {meta['size']} bytes")
                data = bytes(found.bytes())
            except FileNotFoundError:
                return None
        return StoredObject(data, Version(meta["e_tag"], meta["version"]), meta["last_modified"])

    def head(self, key: str) -> Entry | None:
        """Return what a list says of an object; None if it does not exist."""
        with self._reporting(key):
            try:
                meta = self._store.head(key)
            except FileNotFoundError:
                return None
        return Entry(key, meta["size"], meta["last_modified"])

    def tail(self, key: str, length: int) -> tuple[bytes, int]:
        """Return an object's last ``length`` bytes and their offset."""
        with self._reporting(key):
            found = self._store.get(key, options={"range": {"suffix": length}})
            return bytes(found.bytes()), found.range[0]

    def ranges(self, key: str, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return byte ranges ``(start, length)`` of an object, fetched in parallel; close ones in one request."""
        starts, lengths = [start for start, _ in spans], [length for _, length in spans]
        with self._reporting(key):
            return [bytes(part) for part in self._store.get_ranges(key, starts=starts, lengths=lengths)]

    def put(self, key: str, content: bytes | Path) -> None:
        """Write an object; a large file in parts."""
        with self._reporting(key):
            if isinstance(content, bytes):
                self._store.put(key, content)
                return
            with open_regular(content) as file:  # not by its path: a link in its place would be followed
                self._store.put(key, file)

    def create(self, key: str, data: bytes) -> Version | None:
        """Write an object that does not exist yet; None if it exists."""
        return self._put_if(key, data, "create")

    def replace(self, key: str, data: bytes, version: Version) -> Version | None:
        """Replace an object whose content is still ``version``; None if it has changed."""
        only: UpdateVersion = {"e_tag": version.e_tag}
        if version.version is not None:
            only["version"] = version.version
        return self._put_if(key, data, only)

    def _put_if(self, key: str, data: bytes, mode: "PutMode") -> Version | None:
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        with self._reporting(key):
            try:
                stored = self._store.put(key, data, mode=mode, use_multipart=False)
            except (AlreadyExistsError, PreconditionError, FileNotFoundError):
                return None
        return Version(stored["e_tag"], stored["version"])

    def list(self, folder: str) -> Iterator[Entry]:
        """Yield every object whose key begins with ``folder/``."""
        with self._reporting(folder):
            for batch in self._store.list(folder):
                for meta in batch:
                    yield Entry(meta["path"], meta["size"], meta["last_modified"])

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; skip missing ones."""
        for start in range(0, len(keys), DELETED_AT_ONCE):
            with self._reporting(keys[start]):
                try:
                    self._store.delete(list(keys[start : start + DELETED_AT_ONCE]))
                except FileNotFoundError:
                    continue

    @contextmanager
    def _reporting(self, key: str) -> Iterator[None]:
        from obstore.exceptions import BaseError

        try:
            yield
        except BaseError as error:
            raise RemoteStoreError(
                f"{self.where(key)} can't be reached ({_reason(error)}); check the AWS_* variables and the network, "
                "then run the same command again"
            ) from error


def open_store(url: str, endpoint: str | None) -> ObjectStore:
    """Open the store at ``s3://bucket/prefix``, as :func:`parse_url` returns it; sends nothing yet.

    Its connections end with the object, so hold it for as long as it is used.

    Args:
        url: of a bucket and a prefix.
        endpoint: of a server other than AWS; None for AWS.

    Raises:
        RemoteStoreError: obstore is not installed, or the AWS_* variables make no sense.
    """
    try:
        from obstore.exceptions import BaseError
        from obstore.store import S3Store
    except ImportError as error:
        raise RemoteStoreError(f"{url} needs obstore: pip install 'diffsim-retrieval[s3]'") from error
    bucket, _, prefix = url.removeprefix(f"{SCHEME}://").partition("/")
    server: S3Config = {} if endpoint is None else {"endpoint": endpoint}
    plain: ClientConfig | None = {"allow_http": True} if _is_local(endpoint) else None
    retries: RetryConfig = {"max_retries": RETRIES, "retry_timeout": RETRY_TIMEOUT}
    try:
        store = S3Store(bucket, prefix=prefix or None, config=server, client_options=plain, retry_config=retries)
    except BaseError as error:
        raise RemoteStoreError(f"{url} can't be opened ({_reason(error)}); check the AWS_* variables") from error
    return ObjectStore(url, store)


def _is_local(endpoint: str | None) -> bool:
    return endpoint is not None and urlsplit(endpoint).hostname in _LOOPBACK


def _reason(error: Exception) -> str:
    """Return an obstore error as part of one line, without its debug output."""
    return without_secrets(" ".join(str(error).split("\n\nDebug source")[0].split()))[:300]


def without_secrets(text: str) -> str:
    """Return ``text`` without user names, passwords and queries of the URLs in it."""
    return _SECRET.sub("", text) if "://" in text else text


def configured_endpoint() -> str | None:
    """Return the endpoint in the environment; None for AWS itself.

    A user name, a password and a query in it are left out: requests are signed by the AWS_* keys, and an endpoint is
    shown in messages and kept in ``REMOTE``.

    Raises:
        UsageError: it makes no sense as a URL.
    """
    given = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get(ENDPOINT_VARIABLE)
    return None if not given else plain_endpoint(given)


def plain_endpoint(url: str) -> str:
    """Return an endpoint without user name, password, query and fragment; UsageError if it is no http(s) URL."""
    try:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname:
            return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    except ValueError:  # not chained: its message would show the URL
        pass
    raise UsageError(f"{ENDPOINT_VARIABLE} must be a URL like https://HOST:PORT")


def is_object(path: str | Path) -> bool:
    """Say whether a path names an object in a bucket, with both slashes or, as a Path has it, with one."""
    return os.fspath(path).startswith(f"{OBJECT}/")


def is_url(text: str) -> bool:
    """Say whether ``text`` is a URL, not a path."""
    scheme, separator, _ = text.partition("://")
    return bool(separator) and scheme.isalnum()


def parse_url(text: str) -> str:
    """Return ``s3://bucket/prefix`` without superfluous slashes.

    Raises:
        UsageError: another scheme, or no bucket or prefix.
    """
    scheme, _, rest = text.partition("://")
    if scheme != SCHEME:
        raise UsageError(
            f"an index can't be at {without_secrets(text)}: only folders and {SCHEME}://BUCKET/NAME.diffsim are known"
        )
    parts = [part for part in rest.split("/") if part]
    if len(parts) < 2 or rest.startswith("/"):
        raise UsageError(f"{without_secrets(text)} does not name an index: {SCHEME}://BUCKET/NAME.diffsim is needed")
    if not _BUCKET.fullmatch(parts[0]) or {".", ".."} & set(parts) or not text.isprintable():
        raise UsageError(
            f"{without_secrets(text)} does not name an index: a bucket has letters, digits, '.', '_' and '-', and no "
            "part of the path is '.' or '..'"
        )
    return f"{SCHEME}://{'/'.join(parts)}"
