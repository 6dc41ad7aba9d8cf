"""One writer at a time."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from index_store.errors import IndexLockedError
from index_store.layout import Layout
from index_store.lock import writer_lock
from index_store.reader import IndexReader

HOLDER = """
import sys
from pathlib import Path
from index_store.errors import IndexLockedError
from index_store.layout import Layout
from index_store.lock import writer_lock
try:
    with writer_lock(Layout(Path(sys.argv[1]))):
        print("held", flush=True)
        sys.stdin.read()
except IndexLockedError as error:
    print(error, flush=True)
"""


def start_writer(root: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLDER, str(root)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path.cwd())


def test_a_second_process_is_refused_at_once_and_a_kill_frees_the_lock(layout: Layout) -> None:
    with start_writer(layout.root) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(IndexLockedError, match="another process is writing"), writer_lock(layout):
            pytest.fail("two writers")
        assert len(IndexReader(layout.root)) == 6  # readers do not care
        with start_writer(layout.root) as second:
            assert second.communicate()[0].startswith("another process is writing to ")
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    with writer_lock(layout):
        pass


def test_one_process_is_one_writer_too(layout: Layout) -> None:
    with writer_lock(layout), pytest.raises(IndexLockedError), writer_lock(layout):
        pytest.fail("two writers")
    with writer_lock(layout):
        pass
