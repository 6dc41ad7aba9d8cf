"""Duplicates and clusters over HTTP are those of the library; the work is bounded, and its result kept."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from retrieval import Cancellation, Client, ClusterSettings, DuplicateSettings, Progress, find_clusters, find_duplicates
from retrieval.errors import CancelledError, UsageError
from retrieval.progress import OnProgress
from retrieval.serving.app import create_app
from retrieval.serving.errors import BusyError, StoppingError
from retrieval.serving.queueing import long_work
from retrieval.serving.queueing.long_work import LongWork, Piece
from retrieval.settings import ServerLimits, ServerSettings
from tests.serving.conftest import ORIGIN
from tests.serving.served import serving

SOON = 20.0  # seconds
DUPLICATES, CLUSTERS = (f"/v1/indexes/copies/{name}" for name in ("duplicates", "clusters"))


def plain(values: dict[str, Any]) -> dict[str, Any]:
    """Return JSON without times, and without the details of notes that the command line does not print."""
    kept = {name: value for name, value in values.items() if name not in ("timing_s", "note_details")}
    found: dict[str, Any] = json.loads(json.dumps(kept))
    return found


def done(client: TestClient, path: str, **asked: Any) -> dict[str, Any]:
    """Ask until the work is done."""
    until = time.monotonic() + SOON
    while (answer := client.get(path, params=asked)).status_code == 202:
        assert time.monotonic() < until
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.thorough
def test_the_json_is_that_of_the_library(grouped: TestClient, copies_index: Path) -> None:
    folder = str(copies_index.parent / "pictures" / "west")
    asked = DuplicateSettings(mode="style", neighbours=9, same=0.7, similar=0.8, references=(folder,))
    fields = {"mode": "style", "neighbours": 9, "same": 0.7, "similar": 0.8, "references": [folder]}
    assert plain(done(grouped, DUPLICATES, **fields)) == plain(find_duplicates(copies_index, asked).to_dict())
    assert plain(done(grouped, DUPLICATES)) == plain(find_duplicates(copies_index).to_dict())
    divided = find_clusters(copies_index, ClusterSettings("instance", 6, 3, rerank=False)).to_dict()
    assert plain(done(grouped, CLUSTERS, mode="instance", neighbours=6, min_size=3, rerank=False)) == plain(divided)


def test_work_is_done_once_for_each_question(copies_index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[Any] = []
    real = find_duplicates
    monkeypatch.setattr("retrieval.serving.server.find_duplicates", lambda *given: begun.append(given) or real(*given))
    with TestClient(create_app({"copies": copies_index}), ORIGIN) as client:
        first, again = (done(client, DUPLICATES) for _ in range(2))
        assert first == again, "the same times, too"
        assert len(begun) == 1
        done(client, DUPLICATES, same=0.9)
        assert len(begun) == 2


def test_what_makes_no_sense_is_refused(grouped: TestClient) -> None:
    for path, asked, words in (
        (DUPLICATES, {"mode": "taste"}, "unknown mode 'taste'"),
        (DUPLICATES, {"same": 0}, "same"),
        (DUPLICATES, {"references": "/nowhere"}, "no image in this reference folder"),
        (CLUSTERS, {"min_size": 1}, "min_size"),
        (CLUSTERS, {"depth": 3}, "depth"),
    ):
        answer = grouped.get(path, params=asked)
        assert (answer.status_code, words in answer.json()["error"]) == (422, True), answer.text
    for asked, limit in (({"neighbours": 31}, "neighbours"), ({"wait_ms": 30_001}, "deadline_ms")):
        answer = grouped.get(DUPLICATES, params=asked)
        assert (answer.status_code, answer.json()["limit"]) == (422, limit)
    assert grouped.get("/v1/indexes/other/duplicates").status_code == 404


def test_an_index_above_the_limit_is_refused(copies_index: Path) -> None:
    settings = ServerSettings(limits=ServerLimits(grouped=19))
    with TestClient(create_app({"copies": copies_index}, settings), ORIGIN) as client:
        answer = client.get(CLUSTERS)
        assert (answer.status_code, answer.json()["limit"]) == (422, "grouped")


@pytest.mark.thorough
def test_a_client_gives_the_same_groups(copies_index: Path) -> None:
    heard: list[Progress] = []
    with serving({"copies": copies_index}) as url:
        client = Client(url)
        assert plain(client.duplicates(on_progress=heard.append).to_dict()) == plain(
            find_duplicates(copies_index).to_dict()
        )
        settings = ClusterSettings(min_size=3)
        assert plain(client.clusters(settings).to_dict()) == plain(find_clusters(copies_index, settings).to_dict())
        with pytest.raises(UsageError, match="unknown mode"):
            client.clusters(ClusterSettings("taste"))
        stopped = Cancellation()
        stopped.request()
        with pytest.raises(CancelledError):
            client.duplicates(cancel=stopped)


class Gate:
    """Work that waits for a gate, and tells that it waits."""

    def __init__(self) -> None:
        self.gate, self.begun = threading.Event(), threading.Event()

    def __call__(self, tell: OnProgress, cancel: Cancellation) -> str:
        self.begun.set()
        while not self.gate.wait(0.005):
            tell(Progress("pairs", 1, 2))
            cancel.check()
        return "found"


@pytest.fixture
def work() -> Iterator[LongWork]:
    made = LongWork(most=2, kept=2)
    yield made
    made.close()


def ended(piece: Piece) -> Piece:
    piece.ended.result(SOON)
    return piece


def test_pieces_wait_for_each_other_and_are_bounded(work: LongWork) -> None:
    gate = Gate()
    first, second = work.piece("a", gate), work.piece("b", lambda tell, cancel: "b")
    assert gate.begun.wait(SOON)
    with pytest.raises(BusyError, match="groupings"):
        work.piece("c", gate)
    assert work.piece("a", gate) is first
    assert not second.is_done
    gate.gate.set()
    assert [ended(each).value() for each in (first, second)] == ["found", "b"]


def test_the_latest_results_are_kept_and_an_error_is_told_once(work: LongWork) -> None:
    def fails(tell: OnProgress, cancel: Cancellation) -> None:
        raise UsageError("no")

    first = ended(work.piece("a", fails))
    assert work.piece("a", fails) is first
    with pytest.raises(UsageError):
        first.value()
    assert ended(work.piece("a", lambda tell, cancel: 1)) is not first
    for number, name in enumerate("bcd"):
        ended(work.piece(name, lambda tell, cancel, number=number: number))
    assert ended(work.piece("d", fails)).value() == 2
    assert ended(work.piece("a", lambda tell, cancel: "new")).value() == "new"


def test_work_that_nobody_asks_for_ends(work: LongWork, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_work, "ABANDONED_SECONDS", 0.1)
    with pytest.raises(CancelledError):
        ended(work.piece("a", Gate())).value()


def test_closing_ends_what_runs_and_what_waits() -> None:
    made, gate = LongWork(most=2, kept=2), Gate()
    running, waiting = made.piece("a", gate), made.piece("b", gate)
    assert gate.begun.wait(SOON)
    made.close()
    for piece in (running, waiting):
        with pytest.raises(CancelledError):
            ended(piece).value()
    with pytest.raises(StoppingError):
        made.piece("c", gate)


def test_a_request_says_where_the_work_stands(grouped: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate()
    monkeypatch.setattr("retrieval.serving.server.find_clusters", lambda _, __, tell, cancel: gate(tell, cancel))
    answer = grouped.get(CLUSTERS, params={"neighbours": 3, "wait_ms": 0})
    assert (answer.status_code, answer.json()["stage"] in ("waiting", "pairs")) == (202, True)
    assert answer.headers["retry-after"] == "1"
    assert gate.begun.wait(SOON)
    answer = grouped.get(CLUSTERS, params={"neighbours": 3, "wait_ms": 50})
    assert answer.json() == {"stage": "pairs", "done": 1, "total": 2}
    page = grouped.get("/clusters", params={"neighbours": 3}, headers={"accept": "text/html"})
    assert "pairs: 1 of 2 …" in page.text
    assert '<noscript><meta http-equiv="refresh"' in page.text
    gate.gate.set()
