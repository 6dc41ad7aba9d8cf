"""A hub cache as huggingface_hub lays it out, and a server that answers as the hub does."""

import hashlib
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

LARGE = (".safetensors", ".bin", ".msgpack", ".h5", ".ckpt", ".onnx", ".onnx_data", ".png")


def blob_name(name: str, content: bytes) -> str:
    """Files of git-lfs are named by their SHA-256, small ones by git's SHA-1."""
    if name.endswith(LARGE):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def write_cache(hub: Path, repo: str, revision: str, files: Mapping[str, bytes], branch: str = "main") -> Path:
    """Write blobs, and links to them below ``snapshots/REVISION``; return that folder."""
    root = hub / f"models--{repo.replace('/', '--')}"
    snapshot = root / "snapshots" / revision
    for folder in (root / "blobs", snapshot, (root / "refs" / branch).parent):
        folder.mkdir(parents=True, exist_ok=True)
    (root / "refs" / branch).write_text(revision)
    for name, content in files.items():
        blob, link = root / "blobs" / blob_name(name, content), snapshot / name
        blob.write_bytes(content)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to("../" * (2 + name.count("/")) + f"blobs/{blob.name}")
    return snapshot


class Hub:
    """The repositories of a server by (name, revision), and the requests that it got."""

    def __init__(self, repositories: Mapping[tuple[str, str], Mapping[str, bytes]]) -> None:
        self.repositories = repositories
        self.branches: dict[tuple[str, str], str] = {}  # commits by (name, branch)
        self.refused: dict[str, tuple[int, str]] = {}  # status and error code by the name of a gated repository
        self.requests: list[tuple[str, str]] = []  # method and path, of repositories' files
        self.url = ""

    def downloaded(self) -> list[str]:
        """The names of the files that were sent."""
        return [path.split("/resolve/")[1].partition("/")[2] for method, path in self.requests if method == "GET"]


class Answers(BaseHTTPRequestHandler):
    """Answers for the repositories of :attr:`hub`."""

    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        if "/resolve/" in self.path:  # the hub's package also asks for a list of agents, once a process
            self.hub.requests.append((self.command, self.path))
        repo, _, rest = self.path.strip("/").partition("/resolve/")
        revision, _, name = rest.partition("/")
        if repo in self.hub.refused:
            self._refuse(*self.hub.refused[repo])
            return
        revision = self.hub.branches.get((repo, revision), revision)
        files = self.hub.repositories.get((repo, revision))
        if files is None or name not in files:
            self._refuse(404, "EntryNotFound" if files is not None else "RevisionNotFound", revision)
            return
        self._send(name, files[name], revision, with_body)

    def _refuse(self, status: int, code: str, revision: str = "") -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Repo-Commit", revision)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, name: str, content: bytes, revision: str, with_body: bool) -> None:
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        body = content[start:]
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{blob_name(name, content)}"')
        self.send_header("X-Repo-Commit", revision)
        self.send_header("Content-Length", str(len(body)))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serve_hub(repositories: Mapping[tuple[str, str], Mapping[str, bytes]]) -> Iterator[Hub]:
    """Serve ``/NAME/resolve/REVISION/FILE`` and nothing else."""
    hub = Hub(repositories)

    server = ThreadingHTTPServer(("127.0.0.1", 0), type("AnswersOfHub", (Answers,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def online_hub(
    repositories: Mapping[tuple[str, str], Mapping[str, bytes]], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Hub]:
    """Serve repositories to this process, which is online and keeps what it gets in ``cache``."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with serve_hub(repositories) as server:
        point_to(server.url, monkeypatch)
        yield server


def point_to(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As HF_ENDPOINT does, which the hub's package reads when it is imported."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
    template = f"{url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    # Versions below 1 keep a second one.
    monkeypatch.setattr("huggingface_hub.file_download.HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
