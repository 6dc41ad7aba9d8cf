"""Run the installed commands as a user does, or the same code in this process, which takes a tenth of the time."""

import contextlib
import importlib
import io
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

from retrieval.sample_images.pictures import MOTIFS, STYLES

BIN = Path(sys.executable).parent
UNDER_TEST = ("PYTHONPATH", "ATEN_CPU_CAPABILITY", "FAISS_OPT_LEVEL")  # which code, and which kernels it computes with


def run(
    *arguments: str | Path, cwd: Path, stdin: bytes = b"", environment: dict[str, str] | None = None
) -> "subprocess.CompletedProcess[bytes]":
    """Run an installed command; its environment is bare, so that a terminal's settings do not matter."""
    command = [str(BIN / arguments[0]), *map(str, arguments[1:])]
    plain = {"PATH": os.environ["PATH"], "HOME": str(cwd), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    plain |= {name: os.environ[name] for name in UNDER_TEST if name in os.environ}
    return subprocess.run(
        command, cwd=cwd, input=stdin, capture_output=True, env=plain | (environment or {}), timeout=120
    )


def run_here(*arguments: str | Path, cwd: Path, stdin: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    """Run a command in this process: for what does not depend on how a process starts and ends."""
    words = [str(word) for word in arguments]
    module = importlib.import_module(f"cli.{words[0].removeprefix('diffsim-')}_command")
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8") for _ in range(2))
    with (
        contextlib.chdir(cwd),
        mock.patch.dict(os.environ, {"COLUMNS": "200"}),
        mock.patch.object(sys, "argv", words),
        mock.patch.object(sys, "stdin", sys.stdin and io.TextIOWrapper(io.BytesIO(stdin), "utf-8")),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            module.main()
        except SystemExit as end:
            code = int(end.code or 0)
    shown = []
    for stream in (out, err):
        stream.flush()
        shown.append(stream.buffer.getvalue())
    return subprocess.CompletedProcess(words, code, *shown)


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
