"""An object server, and machines that use it."""

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pytest

from index_store.remote.pull import MIRRORS_VARIABLE
from tests.support.object_server import BUCKET, ENVIRONMENT, object_server

NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """A running object server."""
    with object_server() as place:
        yield place


@pytest.fixture
def remote(endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of a machine that uses the server; also this process's."""
    environment = {**ENVIRONMENT, "AWS_ENDPOINT_URL": endpoint, MIRRORS_VARIABLE: str(tmp_path / "mirrors")}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return environment


@pytest.fixture
def url(remote: dict[str, str]) -> str:
    """Where no index is yet."""
    return f"s3://{BUCKET}/tests/{next(NUMBERS)}.diffsim"


@pytest.fixture
def other_machine(tmp_path: Path) -> Iterator[Callable[[], None]]:
    """Go on as another machine, whose mirrors are empty."""
    numbers = itertools.count()
    with mock.patch.dict(os.environ):
        yield lambda: os.environ.update({MIRRORS_VARIABLE: str(tmp_path / f"other{next(numbers)}")})
