"""Hostile requests: no error of the server, nothing read that is not catalogued, bounded memory, alive afterwards."""

import gc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from starlette.testclient import TestClient

from tests.serving.hostile import Hostile, corpus

# Starlette leaves the file of a form that ends early to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
MORE_MEMORY = 300_000_000  # bytes that the whole corpus may leave in the process


def secrets() -> list[bytes]:
    """Bytes that no answer may hold: of files outside the index."""
    return [Path("/etc/passwd").read_bytes()[:40], b"class ServerSettings"]


def send(client: TestClient, request: Hostile) -> int:
    answer = client.request(request.method, request.path, content=request.body, headers=request.headers)
    assert answer.status_code < 500, (request.kind, request.path[:80], answer.text[:300])
    assert not [secret for secret in secrets() if secret in answer.content], request
    if "text/html" in answer.headers.get("content-type", ""):
        assert b"<script>alert" not in answer.content
    if "json" in answer.headers.get("content-type", "") and answer.status_code >= 400:
        assert {"error", "kind"} <= answer.json().keys()
        assert "Traceback" not in answer.text
    return answer.status_code


def survives(client: TestClient, requests: Iterator[Hostile]) -> Counter[tuple[str, int]]:
    before = psutil.Process().memory_info().rss
    found: Counter[tuple[str, int]] = Counter()
    for request in requests:
        found[(request.kind, send(client, request))] += 1
    gc.collect()
    assert psutil.Process().memory_info().rss - before < MORE_MEMORY
    assert client.post("/v1/search", json={"images": [{"id": 1}], "k": 1}).status_code == 200
    assert client.get("/readyz").status_code == 200
    return found


@pytest.mark.thorough
def test_a_slice_of_the_hostile_corpus(client: TestClient) -> None:
    found = survives(client, corpus())
    assert found[("path", 200)] <= 2, "a page of the collection, whose other parameters make no sense"
    assert {status for kind, status in found if kind == "URL"} <= {403, 422}


@pytest.mark.slow
def test_the_whole_hostile_corpus(client: TestClient) -> None:
    found = survives(client, corpus(seed=1, garbage=10_000))
    for (kind, status), count in sorted(found.items()):
        print(f"{status}  {count:6d}  {kind}")
