"""Workers in processes of this machine: for models that one process can't spread over all cores."""

import multiprocessing
import signal
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from retrieval.indexing.workers.worker import AnySpec, Job, WorkerLostError

JOIN_SECONDS = 5.0  # for a process that was asked to end


class ProcessWorker:
    """A worker in a process of its own."""

    def __init__(self, spec: AnySpec) -> None:
        """Start the process and wait until the worker in it is open.

        Raises:
            WorkerLostError: the process ended before.
            DiffSimError: the worker can't be opened.
        """
        context = multiprocessing.get_context("spawn")  # a forked copy of torch's threads would hang
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, spec), daemon=True)
        self._process.start()
        other.close()
        self._answer()

    @property
    def pid(self) -> int | None:
        """The number of the process."""
        return self._process.pid

    def do(self, job: Job) -> Any:
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
        """Kill the process: a segment that it is writing does not count yet."""
        with suppress(OSError):
            self._process.kill()
        self._process.join(JOIN_SECONDS)


def _serve(pipe: Connection, spec: AnySpec) -> None:
    """Answer jobs until the driver closes the pipe or ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of the terminal; the driver decides
    try:
        worker = spec.open()
    except BaseException as error:
        pipe.send(_plain(error))
        return
    pipe.send(worker.ready())
    with suppress(EOFError, OSError):
        while True:
            job = pipe.recv()
            try:
                answer: Any = worker.do(job)
            except BaseException as error:
                answer = _plain(error)
            pipe.send(answer)


def _plain(error: BaseException) -> BaseException:
    """Return an error that can be sent: the same one, without its cause and traceback."""
    error.__traceback__ = error.__cause__ = error.__context__ = None
    return error
