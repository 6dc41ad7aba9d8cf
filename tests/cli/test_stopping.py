"""Ctrl-C stops a command at once, and threads wait without spinning."""

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from functools import partial
from pathlib import Path

from tests.support.commands import BIN, query_of, run_here
from tests.support.paths import ROOT


def test_threads_of_a_command_wait_without_spinning() -> None:
    """Beside another busy process a search takes fifty times as long otherwise; a user's own choice counts."""
    script = "import os, typer; from cli.terminal.process import run; a = typer.Typer(); "
    script += "a.command()(lambda: print(os.environ['OMP_WAIT_POLICY'], 'torch' in __import__('sys').modules)); run(a)"
    plain = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    for environment, policy in ((plain, "PASSIVE"), ({**plain, "OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")):
        printed = subprocess.check_output([sys.executable, "-c", script], cwd=ROOT, env=environment, text=True)
        assert printed == f"{policy} False\n", "set before torch is imported, which reads it then"


def test_ctrl_c_does_not_wait_for_what_a_thread_still_computes() -> None:
    script = """
        import threading, typer
        from concurrent.futures import ThreadPoolExecutor
        from cli.terminal.process import run

        app = typer.Typer()

        @app.command()
        def work():
            ThreadPoolExecutor(1).submit(threading.Event().wait)  # for ever
            print("a result")
            raise KeyboardInterrupt

        run(app)
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "a result\n", "stopped\n")


def test_ctrl_c_leaves_a_valid_index_and_the_same_command_goes_on(gallery: Path, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    images = [folder / f"{number:03d}.png" for number in range(800)]  # more than are computed before the signal comes
    for number, image in enumerate(images):
        # Other bytes behind each picture: equal files would be computed once.
        image.write_bytes(query_of(gallery, number % 5, number % 8).read_bytes() + str(number).encode())
    command = [str(BIN / "diffsim-index"), "build", "many", "--model", "cells", "--segment-rows", "16"]
    command += ["--batch-size", "4"]
    # A shell's background jobs ignore SIGINT, and so would what they start: take it as a terminal would give it.
    default = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=default
    )
    deadline = time.monotonic() + 60
    while len(list((tmp_path / "many.diffsim" / "generations").glob("*.json"))) < 3:
        time.sleep(0.02)
        assert process.poll() is None
        assert time.monotonic() < deadline
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert b"Traceback" not in errors
    last = errors.decode().splitlines()[-1]
    counts = re.fullmatch(r"stopped: (\d+) of 800 images are done and in many.diffsim; the same command goes on", last)
    assert counts, last
    kept = json.loads(run_here("diffsim-index", "info", "--json", cwd=tmp_path).stdout)["items"]
    assert int(counts[1]) == kept
    assert 16 <= kept < 800
    for image in images[kept + 20 :]:
        image.unlink()
    report = json.loads(run_here("diffsim-index", "build", "many", "--json", cwd=tmp_path).stdout)
    assert report["unchanged"] == kept
    assert report["items"] == min(kept + 20, 800)
