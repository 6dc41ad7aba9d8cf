"""Search, score and explain by HTTP give the command line's JSON, for every source of images and every option."""

import base64
import copy
import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from retrieval import Box, Engine, Mask, Query, Results, Subject
from retrieval.search.filters.filter import Filter
from tests.support.commands import run_here

TIMED = ("timing_ms",)


def plain(answer: dict[str, Any]) -> dict[str, Any]:
    """An answer without times and without the words beside its notes."""
    return {name: value for name, value in answer.items() if name not in (*TIMED, "note_details")}


def expected(results: Results) -> dict[str, Any]:
    return dict(plain(json.loads(json.dumps(results.to_dict()))))


def close(answer: dict[str, Any], results: Results) -> None:
    """Assert equal answers; scores may differ in the last digits, because several questions share a batch."""
    mine, other = plain(copy.deepcopy(answer)), expected(results)
    if mine["filter"] is None:
        other["filter"] = None
    for one, two in zip(mine.pop("results"), other.pop("results"), strict=True):
        for name in ("score", "coarse_score"):
            assert one.pop(name) == pytest.approx(two.pop(name), abs=1e-5)
        assert one == two
    assert mine == other


def encoded(path: Path) -> dict[str, str]:
    return {"base64": base64.b64encode(path.read_bytes()).decode()}


def test_the_answer_is_the_json_of_the_command_line(client: TestClient, index: Path, tmp_path: Path) -> None:
    asked = ("diffsim-search", "-i", index, "id:3", "-m", "instance", "-k", "4", "--candidates", "9", "--json")
    printed = json.loads(run_here(*asked, cwd=tmp_path).stdout)
    body = {"images": [{"id": 3}], "mode": "instance", "k": 4, "candidates": 9}
    answer = client.post("/v1/search", json=body).json()
    assert answer.pop("note_details") == []
    assert answer.keys() == printed.keys()
    assert plain(answer) == plain(printed)
    assert answer["timing_ms"].keys() == printed["timing_ms"].keys()


@pytest.mark.parametrize(
    "choices",
    [
        {"k": 5, "exhaustive": True},
        {"k": 5, "rerank": False},
        {"k": 5, "similarity": "mse"},
        {"k": 30, "min_score": 0.9, "exclude_copies": True},
    ],
    ids=str,
)
def test_every_choice_of_a_search(
    client: TestClient, engine: Engine, files: list[Path], choices: dict[str, Any]
) -> None:
    answer = client.post("/v1/search", json={"images": [encoded(files[7])], **choices})
    close(answer.json(), engine.search(files[7].read_bytes(), **choices))


def test_a_board_with_weights_and_pictures_to_move_away_from(
    client: TestClient, engine: Engine, files: list[Path]
) -> None:
    images = [{**encoded(files[0]), "weight": 2}, {"id": 9}]
    body = {"images": images, "minus": [{"id": 20, "weight": 3}], "combine": "union", "k": 4}
    paths = engine.paths()
    query = Query([files[0].read_bytes(), Path(paths[9])], [2, 1], [Path(paths[20])], [3], "union")
    close(client.post("/v1/search", json=body).json(), engine.search(query, k=4))


def test_a_box_and_a_mask(client: TestClient, engine: Engine, files: list[Path]) -> None:
    data, box = files[3].read_bytes(), (0.1, 0.2, 0.5, 0.4)
    answer = client.post("/v1/search", json={"images": [{**encoded(files[3]), "box": box}], "k": 3}).json()
    close(answer, engine.search(Query([data], regions=[Box(*box)]), k=3))
    assert len(answer["results"][0]["found_box"]) == 4
    buffer, mask = io.BytesIO(), Image.new("L", (10, 10), 0)
    mask.paste(255, (0, 0, 5, 10))
    mask.save(buffer, "PNG")
    files_of_form = [("image", data), ("image", buffer.getvalue())]
    options = {"images": [{"part": 0, "mask": {"part": 1}}], "k": 3}
    answer = client.post("/v1/search/upload", files=files_of_form, data={"options": json.dumps(options)}).json()
    close(answer, engine.search(Query([data], regions=[Mask(buffer.getvalue())]), k=3))


def test_filters_texts_subjects_and_percentiles(client: TestClient, engine: Engine, files: list[Path]) -> None:
    answer = client.post("/v1/search", json={"images": [{"id": 1}], "glob": ["*cat.png"], "newer": "9d", "k": 9}).json()
    close({**answer, "filter": None}, engine.search(Path(engine.paths()[1]), where=Filter(glob="*cat.png"), k=9))
    assert answer["filter"]["images"] == 5
    texts = client.post("/v1/search", json={"texts": ["a cat"]})
    assert "no encoder" in texts.json()["error"]
    subject = client.post("/v1/search", json={"images": [{**encoded(files[3]), "subject": True}], "k": 3}).json()
    close(subject, engine.search(Query([files[3].read_bytes()], regions=[Subject()]), k=3))
    judged = client.post("/v1/search", json={"images": [{"id": 1}], "min_percentile": 10})
    assert judged.status_code in (200, 422), "an index of 40 images may have no percentiles"


def test_uploaded_files_ask_in_one_request_or_by_their_key(
    client: TestClient, engine: Engine, files: list[Path]
) -> None:
    data = files[5].read_bytes()
    first = client.post("/v1/search/upload", files={"image": data}, data={"options": '{"k": 3}'}).json()
    close(first, engine.search(data, k=3))
    held = client.post("/v1/uploads", files={"image": data}).json()
    assert (held["width"], held["height"]) == (96, 96)
    again = client.post("/v1/search", json={"images": [{"upload": held["upload"]}], "k": 3}).json()
    assert plain(again) == plain(first)
    shown = client.get(f"/v1/uploads/{held['upload']}/thumbnail")
    assert Image.open(io.BytesIO(shown.content)).format == "JPEG"


def test_a_bad_question_among_several_has_its_error(client: TestClient, engine: Engine) -> None:
    body = {"queries": [{"images": [{"id": 1}]}, {"images": [{"id": 999}]}, {"images": [{"id": 2}]}], "k": 2}
    first, second, third = client.post("/v1/search/many", json=body).json()["answers"]
    assert second == {"error": "the index has no item with the id 999", "kind": "not_found"}
    close(first, engine.search(Path(engine.paths()[1]), k=2))
    close(third, engine.search(Path(engine.paths()[2]), k=2))


def test_the_score_of_a_pair(client: TestClient, engine: Engine, files: list[Path]) -> None:
    body = {"first": {"id": 1}, "second": encoded(files[30]), "mode": "instance"}
    answer = client.post("/v1/score", json=body).json()
    score = engine.score(Path(engine.paths()[1]), files[30].read_bytes(), "instance")
    assert answer == {"schema": 1, "index": "gallery", "mode": "instance", "score": pytest.approx(score, abs=1e-6)}


def test_explanations_as_numbers_and_as_a_picture(client: TestClient, engine: Engine) -> None:
    body = {"query": {"id": 1}, "candidates": [2, 3], "correspondences": 5}
    answer = client.post("/v1/explain", json=body).json()
    found = list(engine.explain_all(Path(engine.paths()[1]), [2, 3], None, 5))
    assert [each["score"] for each in answer["explanations"]] == pytest.approx([each.score for each in found])
    assert [each["id"] for each in answer["explanations"]] == [2, 3]
    assert len(answer["explanations"][0]["correspondences"]) == 5
    drawn = client.post("/v1/explain.png", json=body)
    assert drawn.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(drawn.content)).width > 500


LIMITED = {
    "k": {"images": [{"id": 1}], "k": 51},
    "candidates": {"images": [{"id": 1}], "candidates": 61},
    "images": {"images": [{"id": 1}] * 5},
    "deadline_ms": {"images": [{"id": 1}], "deadline_ms": 30_001},
}


@pytest.mark.parametrize("limit", LIMITED)
def test_a_limit_is_named(client: TestClient, limit: str) -> None:
    answer = client.post("/v1/search", json=LIMITED[limit])
    assert answer.status_code == 422
    assert answer.json()["limit"] == limit
    most = client.get("/v1/limits").json()[limit]
    assert f"limit {limit} = {most}" in answer.json()["error"]


def test_limits_of_other_requests_are_named(client: TestClient) -> None:
    many = client.post("/v1/search/many", json={"queries": [{"images": [{"id": 1}]}] * 4})
    explained = client.post("/v1/explain", json={"query": {"id": 1}, "candidates": [1, 2, 3]})
    page = client.get("/v1/indexes/gallery/items?count=21")
    large = client.post("/v1/search", json={"images": [{"base64": base64.b64encode(bytes(2**20 + 1)).decode()}]})
    assert [each.json()["limit"] for each in (many, explained, page, large)] == [
        "queries",
        "explained",
        "page",
        "image_bytes",
    ]
    assert large.status_code == 413


WRONG: dict[str, tuple[dict[str, Any], int, str]] = {
    "no image": ({}, 422, "a question needs one image"),
    "two sources": ({"images": [{"id": 1, "upload": "0" * 64}]}, 422, "give exactly one of"),
    "an unknown field": ({"images": [{"id": 1}], "colour": 1}, 422, "colour"),
    "an unknown mode": ({"images": [{"id": 1}], "mode": "taste"}, 422, "taste"),
    "an unknown index": ({"images": [{"id": 1}], "index": "other"}, 404, "known: gallery"),
    "a forgotten upload": ({"images": [{"upload": "0" * 64}]}, 404, "send the image again"),
    "no such file": ({"images": [{"part": 0}]}, 400, "0 files"),
    "a URL": ({"images": [{"url": "http://example.org/a.png"}]}, 403, "allowed hosts: none"),
    "no picture": ({"images": [{"base64": "aGVsbG8="}]}, 422, "does not hold an image"),
    "a box outside": ({"images": [{"id": 1, "box": [0.6, 0, 0.9, 1]}]}, 422, "does not lie inside"),
    "a path": ({"images": [{"path": "/etc/passwd"}]}, 422, "path"),
    "a contradiction": ({"images": [{"id": 1}], "exhaustive": True, "rerank": False}, 422, "exclude each other"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_request_says_why(client: TestClient, case: str) -> None:
    body, status, words = WRONG[case]
    answer = client.post("/v1/search", json=body)
    assert answer.status_code == status, answer.text
    assert words in answer.json()["error"]
