"""`diffsim-serve` in a process of its own."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

SERVE = [sys.executable, "-c", "from cli.serve_command import main; main()"]
READY_SECONDS = 300


@contextmanager
def serving(index: Path, *options: str) -> Iterator[str]:
    """Yield the URL of a server that has loaded its models, without a slash at its end."""
    command = [*SERVE, str(index), "--port", "0", "--quiet", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip().rstrip("/")
        try:
            _wait_until_ready(url)
            yield url
        finally:
            process.terminate()
            process.wait(60)


def _wait_until_ready(url: str) -> None:
    until = time.monotonic() + READY_SECONDS
    while True:
        try:
            urlopen(f"{url}/readyz").close()
            return
        except HTTPError as error:
            error.close()
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


def asked(url: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the JSON at a URL; with a body, of a POST request."""
    data = None if body is None else json.dumps(body).encode()
    with urlopen(Request(url, data, {"content-type": "application/json"})) as answer:
        found: dict[str, Any] = json.load(answer)
        return found
