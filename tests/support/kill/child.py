"""A forked process that may be killed at any moment, and what it said until then."""

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

Say = Callable[..., None]


class Child:
    """A forked process that runs ``work(say)``; what it says arrives here line by line, even if it is killed."""

    def __init__(self, work: Callable[[Say], object]) -> None:
        reading, writing = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            os.close(reading)
            _live(work, writing)
        os.close(writing)
        self._lines = os.fdopen(reading)

    def lines(self) -> Iterator[Any]:
        """Yield what the child says until it ends."""
        for line in self._lines:
            yield json.loads(line)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> tuple[list[Any], bool]:
        """Return what the child has said since, and whether it was killed."""
        rest = list(self.lines())
        self._lines.close()
        _, status = os.waitpid(self.pid, 0)
        if os.WIFEXITED(status) and os.WEXITSTATUS(status):
            raise RuntimeError("a child failed; its traceback is above")
        return rest, os.WIFSIGNALED(status)


def _live(work: Callable[[Say], object], writing: int) -> NoReturn:
    def say(**words: Any) -> None:
        os.write(writing, (json.dumps(words) + "\n").encode())

    try:
        work(say)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)
