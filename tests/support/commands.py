"""Run the installed commands as a user does."""

import os
import subprocess
import sys
from pathlib import Path

from retrieval.sample_images.pictures import MOTIFS, STYLES

BIN = Path(sys.executable).parent


def run(
    *arguments: str | Path, cwd: Path, stdin: bytes = b"", environment: dict[str, str] | None = None
) -> "subprocess.CompletedProcess[bytes]":
    """Run an installed command; its environment is bare, so that a terminal's settings do not matter."""
    command = [str(BIN / arguments[0]), *map(str, arguments[1:])]
    plain = {"PATH": os.environ["PATH"], "HOME": str(cwd), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    plain |= {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}  # which code is under test
    return subprocess.run(
        command, cwd=cwd, input=stdin, capture_output=True, env=plain | (environment or {}), timeout=120
    )


def failed(result: "subprocess.CompletedProcess[bytes]", code: int) -> str:
    """Assert a clean failure: the code, one line on stderr, no traceback, nothing on stdout. Return the line."""
    message = result.stderr.decode()
    assert result.returncode == code, message
    assert "Traceback" not in message
    assert result.stdout == b""
    errors = [line for line in message.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, message
    return errors[0]


def query_of(gallery: Path, style: int = 0, motif: int = 0) -> Path:
    return gallery / STYLES[style] / f"{MOTIFS[motif]}.png"
