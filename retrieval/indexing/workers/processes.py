"""Workers in processes of this machine: for models that one process can't spread over all cores.

On Linux they are copies of one process that has imported everything, and computes nothing: a copy of torch's running
threads would hang. So the libraries are imported once for all workers, and importing can begin before this process
imports them itself. This module imports none.
"""

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from retrieval.errors import WorkerLostError
from retrieval.settings import WorkerSettings

if TYPE_CHECKING:
    from retrieval.indexing.workers.worker import AnySpec, Job

IMPORTED = "retrieval.indexing.workers.worker"
JOIN_SECONDS = 5.0  # for a process that was asked to end, or killed


def begin_workers(settings: WorkerSettings | None) -> None:
    """Let worker processes begin to import their libraries while this process imports its own and plans the work."""
    if settings is not None and settings.kind == "processes":
        ProcessWorker.begin()


class ProcessWorker:
    """A worker in a process of its own."""

    @staticmethod
    def begin() -> None:
        """Let another process begin to import what workers need, where that is possible; return at once."""
        if sys.platform == "linux":
            multiprocessing.set_forkserver_preload([IMPORTED])
            with _deaf_to_ctrl_c():
                forkserver.ensure_running()

    def __init__(self, spec: "AnySpec") -> None:
        """Start the process and wait until the worker in it is open.

        Raises:
            WorkerLostError: the process ended before.
            DiffSimError: the worker can't be opened.
        """
        self.begin()
        forked = sys.platform == "linux"
        context = multiprocessing.get_context("forkserver") if forked else multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, spec, dict(os.environ)), daemon=True)
        try:
            self._process.start()
        except (EOFError, OSError) as error:  # the process that is copied has ended
            raise WorkerLostError(f"no worker process can be started ({error or type(error).__name__})") from error
        other.close()
        self._answer()

    @property
    def pid(self) -> int | None:
        """The number of the process."""
        return self._process.pid

    def do(self, job: "Job") -> Any:
        """See :class:`retrieval.indexing.workers.worker.Worker`."""
        try:
            self._pipe.send(job)
        except OSError as error:
            raise self._lost() from error
        return self._answer()

    def _answer(self) -> Any:
        try:
            value = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise self._lost() from error
        if isinstance(value, BaseException):
            raise value
        return value

    def _lost(self) -> WorkerLostError:
        self._process.join(JOIN_SECONDS)
        return WorkerLostError(
            f"worker process {self.pid} ended in the middle of its work (exit code {self._process.exitcode}; -9 often "
            "means that memory ran out): use fewer processes"
        )

    def close(self) -> None:
        """See :class:`retrieval.indexing.workers.worker.Worker`."""
        with suppress(OSError):
            self._pipe.send(None)
            self._process.join(JOIN_SECONDS)
        self.kill()
        self._process.join(JOIN_SECONDS)

    def kill(self) -> None:
        """See :class:`retrieval.indexing.workers.worker.Worker`."""
        with suppress(OSError):
            self._process.kill()


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Start processes that Ctrl-C does not reach: it goes to all of a terminal, and the driver decides."""
    resource_tracker.ensure_running()  # its start would undo the mask
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(pipe: Connection, spec: "AnySpec", environment: Mapping[str, str]) -> None:
    """Answer jobs until the driver sends None, closes the pipe or ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # see _deaf_to_ctrl_c
    os.environ.clear()  # it is that of the moment in which the copied process was started
    os.environ.update(environment)
    try:
        worker = spec.open()
    except BaseException as error:
        pipe.send(_plain(error))
        return
    pipe.send(worker.ready())
    with suppress(EOFError, OSError):
        while (job := pipe.recv()) is not None:
            try:
                answer: Any = worker.do(job)
            except BaseException as error:
                answer = _plain(error)
            pipe.send(answer)


def _plain(error: BaseException) -> BaseException:
    """Return an error that can be sent: the same one, without its cause and traceback."""
    error.__traceback__ = error.__cause__ = error.__context__ = None
    return error
