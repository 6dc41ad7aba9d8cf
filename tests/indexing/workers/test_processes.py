"""The process that worker processes are copies of."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

BEGIN = """
from multiprocessing import forkserver
from retrieval.indexing.workers.processes import ProcessWorker
ProcessWorker.begin()
print(forkserver._forkserver._forkserver_pid, flush=True)
input()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere every worker starts afresh")
def test_ctrl_c_does_not_reach_the_process_that_imports() -> None:
    with subprocess.Popen([sys.executable, "-c", BEGIN], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as driver:
        assert driver.stdout is not None
        number = int(driver.stdout.readline())
        facts = dict(line.split(":", 1) for line in Path(f"/proc/{number}/status").read_text().splitlines())
        os.kill(number, signal.SIGKILL)
        driver.communicate(b"\n")
    assert int(facts["SigBlk"], 16) & 1 << signal.SIGINT - 1
    assert driver.returncode == 0
