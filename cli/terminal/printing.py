"""The one place that prints: results on stdout, messages on stderr.

Names of files, folders and indexes may hold characters that a terminal obeys; they are printed as escapes. Output that
can't be written ends the command with one sentence; a message that can't be written is dropped.
"""

import errno
import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from retrieval.errors import DiffSimError, UsageError
from retrieval.text import escaped


def show(*columns: str) -> None:
    """Print one line of a result on stdout; a tab separates columns."""
    print("\t".join(map(escaped, columns)))


def show_lines(text: str) -> None:
    """Print several lines of a result on stdout."""
    for line in text.rstrip("\n").split("\n"):
        show(line)


def show_json(values: Mapping[str, Any] | Sequence[Mapping[str, Any]], indent: int | None = 2) -> None:
    """Print one JSON value on stdout; ``indent`` None gives one line.

    Characters that a terminal obeys or that stdout can't encode are escaped as JSON allows.
    """
    text = json.dumps(values, indent=indent, ensure_ascii=False)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8", "surrogatepass")
    except (UnicodeEncodeError, LookupError):
        text = json.dumps(values, indent=indent)
    print(re.sub(r"[^\n -~]", lambda found: _in_json(found[0]), text))


def _in_json(character: str) -> str:
    return character if escaped(character) == character else json.dumps(character)[1:-1]


def show_paths(paths: Sequence[str], end: bytes) -> None:
    """Print paths on stdout as the bytes that name the files, each with ``end`` after it.

    Text would not do: paths that no encoding can print must still reach xargs. A terminal gets lines that it can show.
    """
    out: Any = sys.stdout  # guarded already inside a command
    out = out if isinstance(out, Output) else Output(out)
    if end == b"\n" and out.isatty():
        for path in paths:
            show(path)
    else:
        out.write_bytes(b"".join(os.fsencode(path) + end for path in paths))


def say(line: str) -> None:
    """Print one line for people on stderr, so that stdout holds results only."""
    print(escaped(line), file=sys.stderr, flush=True)


def read_stdin() -> bytes:
    """Return everything on stdin.

    Raises:
        UsageError: stdin is closed or can't be read.
    """
    if sys.stdin is None:
        raise UsageError("the query is to be read from stdin, which is closed")
    try:
        return sys.stdin.buffer.read()
    except OSError as error:
        raise UsageError(f"the query can't be read from stdin: {error.strerror}") from error


@contextmanager
def guarded_streams() -> Iterator[None]:
    """Let every text be printed inside, whatever stdout and stderr are: closed, full, without a reader, or ASCII only.

    Inside, printing and flushing stdout raise a DiffSimError if it can't be written.
    """
    _open_closed_descriptors()
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = Output(before[0]), Messages(before[1])
    try:
        yield
    finally:
        with suppress(DiffSimError):  # an earlier error ends the command
            sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before


def _open_closed_descriptors() -> None:
    """Keep the numbers 0 to 2 from files of ours: a message of a C library would be written into an index."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)


class Messages:
    """The stream of messages: one that can't be written is dropped, since there is no place left to say so."""

    def __init__(self, stream: TextIO | None) -> None:
        """Take sys.stderr; None: it is closed."""
        self._stream = stream
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that the encoding lacks is shown as escapes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def isatty(self) -> bool:
        """Return whether a person reads along."""
        return self._stream is not None and self._stream.isatty()

    def write(self, text: str) -> int:
        """Write ``text``."""
        self._try(lambda stream: stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Write everything that is buffered."""
        if self._stream is not None:
            self._try(lambda stream: stream.flush())

    def _try(self, action: Callable[[TextIO], object]) -> None:
        try:
            if self._stream is None:
                raise OSError(errno.EBADF, "it is closed")
            action(self._stream)
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        """Send everything to nowhere from now on; Python itself would complain again while it shuts down."""
        if self._stream is None:
            return
        try:
            descriptor = self._stream.fileno()
        except (OSError, ValueError):  # a file in memory
            return
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, descriptor)
        os.close(nowhere)


class Output(Messages):
    """The stream of results: one that can't be written is an error, except where its reader has closed it."""

    def write_bytes(self, data: bytes) -> None:
        """Write ``data`` as they are."""
        self.flush()
        self._try(lambda stream: stream.buffer.write(data))
        self.flush()

    def _fail(self, error: OSError) -> None:
        super()._fail(error)
        if not isinstance(error, BrokenPipeError):  # `| head` has read enough
            raise DiffSimError(f"stdout can't be written: {error.strerror}") from error
