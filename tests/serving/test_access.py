"""Who may ask: hosts, sites, tokens and rates; headers that keep a browser from doing more."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from retrieval.errors import UsageError
from retrieval.serving.app import create_app
from retrieval.serving.errors import BusyError
from retrieval.serving.safety import access as access_module
from retrieval.serving.safety.access import Rate
from retrieval.settings import ServerLimits, ServerSettings
from tests.serving.conftest import ORIGIN

TOKEN = "a-long-enough-token-of-a-test"


@pytest.fixture(scope="module")
def opened(index: Path) -> Iterator[TestClient]:
    settings = ServerSettings(host="0.0.0.0", token=TOKEN, hosts=("photos.example",))
    with TestClient(create_app({"gallery": index}, settings), ORIGIN, follow_redirects=False) as client:
        yield client


@pytest.fixture
def guarded(opened: TestClient) -> TestClient:
    """Nobody is logged in."""
    opened.cookies.clear()
    return opened


def test_a_server_for_others_needs_a_token() -> None:
    with pytest.raises(UsageError, match="needs a token") as caught:
        ServerSettings(host="0.0.0.0")
    assert caught.value.advice == "give-token"
    with pytest.raises(UsageError, match="16 characters"):
        ServerSettings(token="short")
    for host in ("127.0.0.1", "::1", "localhost", "127.8.9.1"):
        ServerSettings(host=host)
    assert TOKEN not in repr(ServerSettings(token=TOKEN))


@pytest.mark.parametrize("path", ["/v1/indexes", "/v1/indexes/gallery/items/1/original", "/metrics", "/openapi.json"])
def test_every_path_but_health_needs_the_token(guarded: TestClient, path: str) -> None:
    assert guarded.get("/healthz").status_code == 200
    refused = guarded.get(path)
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == "Bearer"
    for wrong in ("", "Bearer", f"Bearer {TOKEN}x", f"Basic {TOKEN}", f"Bearer {TOKEN[:-1]}", "Bearer é"):
        assert guarded.get(path, headers={"authorization": wrong.encode()}).status_code == 401
    assert guarded.get(path, headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200


def test_a_person_logs_in_once(guarded: TestClient) -> None:
    asked = guarded.get("/?image=id:3", headers={"accept": "text/html"})
    assert asked.status_code == 401
    assert 'value="/?image=id:3"' in asked.text
    assert guarded.post("/login", data={"token": "wrong"}).status_code == 401
    inside = guarded.post("/login", data={"token": TOKEN, "next": "/?image=id:3"})
    assert (inside.status_code, inside.headers["location"]) == (303, "/?image=id:3")
    cookie = inside.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert TOKEN not in cookie
    assert guarded.get("/v1/indexes").status_code == 200
    for elsewhere in ("https://evil.example", "//evil.example", "/\\evil.example", "javascript:alert(1)"):
        assert guarded.post("/login", data={"token": TOKEN, "next": elsewhere}).headers["location"] == "/"
    guarded.cookies.clear()


def test_the_server_answers_by_its_own_names_alone(client: TestClient, guarded: TestClient) -> None:
    for host in ("evil.example", "localhost.evil.example", "", "127.0.0.1@evil.example", "[::1", "a" * 300):
        assert client.get("/healthz", headers={"host": host}).status_code == 403, host
    for host in ("localhost", "LOCALHOST:8000", "127.0.0.1:1", "[::1]:8000"):
        assert client.get("/healthz", headers={"host": host}).status_code == 200, host
    assert guarded.get("/healthz", headers={"host": "photos.example"}).status_code == 200
    assert client.get("/healthz", headers={"host": "photos.example"}).status_code == 403


def test_pages_of_other_sites_get_nothing(client: TestClient) -> None:
    question = {"images": [{"id": 1}], "k": 1}
    for headers in ({"origin": "https://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}):
        assert client.post("/v1/search", json=question, headers=headers).status_code == 403
    assert client.post("/v1/search", json=question, headers={"origin": ORIGIN}).status_code == 200
    embedded = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}
    assert client.get("/?image=id:1", headers=embedded).status_code == 403
    assert client.get("/healthz", headers={**embedded, "sec-fetch-mode": "navigate"}).status_code == 200
    answer = client.options("/v1/search", headers={"origin": "https://evil.example"})
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("path", ["/", "/v1/indexes", "/nowhere", "/static/app.js"])
def test_every_answer_has_the_headers_of_safety(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"
    assert "server" not in headers


def test_too_many_requests_are_told_when_to_come_back(index: Path) -> None:
    settings = ServerSettings(limits=ServerLimits(requests_per_minute=8))
    with TestClient(create_app({"gallery": index}, settings), ORIGIN) as client:
        answers = [client.post("/v1/search", json={}) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [422, 422, 429, 429]
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 8
        assert "requests_per_minute = 8" in answers[-1].json()["error"]
        assert client.get("/v1/indexes").status_code == 200, "looking at pictures is not counted"


def test_a_rate_comes_back_with_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(access_module.time, "monotonic", lambda: now[0])
    rate = Rate(60)
    for _ in range(15):
        rate.take("a")
    with pytest.raises(BusyError):
        rate.take("a")
    rate.take("b")
    now[0] += 1.0
    rate.take("a")
    with pytest.raises(BusyError):
        rate.take("a")


def test_the_log_has_no_secrets(guarded: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "retrieval"):
        guarded.get("/v1/indexes?private=query", headers={"authorization": f"Bearer {TOKEN}"})
        guarded.post("/login", data={"token": TOKEN})
        guarded.get("/v1/a%0Aforged%1b[2J")
    text = "\n".join(record.getMessage() for record in caplog.records if not record.name.startswith("httpx"))
    assert "/v1/indexes" in text
    assert TOKEN not in text
    assert "private=query" not in text
    assert "\x1b" not in text
    assert "\nforged" not in text
