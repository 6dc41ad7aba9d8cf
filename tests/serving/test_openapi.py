"""The OpenAPI document is the one that is kept for this version, and the server keeps to it whatever it is sent."""

import json
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# At the top, not where it is used: pytest parses it, and while Python 3.11 parses no other thread may.
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.testclient import TestClient

from retrieval.serving.openapi import KEPT, as_text, document
from retrieval.settings import ServerLimits, ServerSettings
from tests.serving.served import serving
from tests.support.paths import ROOT


@pytest.fixture
def url(index: Path, limits: ServerLimits) -> Iterator[str]:
    with serving({"gallery": index}, ServerSettings(limits=limits)) as found:
        yield found


def test_the_document_of_this_version_is_kept() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    kept = KEPT / f"{version}.json"
    assert kept.read_text("utf-8") == as_text(document()), "write it with: python -m retrieval.serving.openapi"


def test_every_request_has_an_example_that_works(client: TestClient) -> None:
    schemas = document()["components"]["schemas"]
    for path, name in (("/v1/search", "SearchRequest"), ("/v1/search/many", "SearchManyRequest")):
        for example in schemas[name]["examples"]:
            assert client.post(path, json=example).status_code == 200, example
    for path, name in (("/v1/score", "ScoreRequest"), ("/v1/explain", "ExplainRequest")):
        assert client.post(path, json=schemas[name]["examples"][0]).status_code == 200


def test_every_error_has_its_status(client: TestClient) -> None:
    for path, each in document()["paths"].items():
        for method, operation in each.items():
            assert operation["summary"], (method, path)
            if path.startswith("/v1"):
                assert {"422", "429", "503"} <= operation["responses"].keys()


def conforms(url: str, examples: int) -> None:
    """Send made-up requests to every operation: no error of the server, and nothing that the document lacks."""

    def is_no_fault(context: Any, response: Any, case: Any) -> Any:
        """A deadline that the request itself sets may pass; every other status from 500 on is a fault."""
        its_own = isinstance(case.body, dict) and case.body.get("deadline_ms") is not None
        return None if response.status_code == 504 and its_own else not_a_server_error(context, response, case)

    checks = [is_no_fault, status_code_conformance, content_type_conformance, response_schema_conformance]
    schema = schemathesis.openapi.from_dict(document())
    for found in schema.get_all_operations():
        _run(found.ok().as_strategy(), url, checks, examples)


def _run(strategy: Any, url: str, checks: list[Callable[..., Any]], examples: int) -> None:
    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=strategy)
    def check(case: Any) -> None:
        response = case.call(base_url=url)
        case.validate_response(response, checks=checks)

    check()


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore")
def test_the_server_keeps_to_the_document(url: str) -> None:
    conforms(url, 2)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_server_keeps_to_the_document_in_many_requests(url: str) -> None:
    conforms(url, 200)


def test_the_kept_documents_are_json() -> None:
    for path in sorted(Path(KEPT).glob("*.json")):
        assert json.loads(path.read_text("utf-8"))["info"]["version"] == path.stem
