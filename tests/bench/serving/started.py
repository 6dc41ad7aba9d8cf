"""`diffsim-serve` in a process of its own."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

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
