"""A file of answers as JSON lines that grows line by line, so that a stopped search goes on where it was."""

import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from retrieval.errors import UsageError
from retrieval.files import check_writable, writing_file

_BLOCK = 1 << 20  # bytes


def json_line(values: Mapping[str, Any]) -> bytes:
    """Return one JSON value as a line; a name that UTF-8 can't hold is escaped."""
    try:
        return json.dumps(values, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:
        return json.dumps(values).encode() + b"\n"


class LineFile:
    """Answers to a list of questions, in their order; the first line says what was asked."""

    def __init__(self, path: Path, asked: Mapping[str, Any]) -> None:
        """Open the file for more answers, or begin it; half a last line, which a kill leaves, is cut off.

        Args:
            path: of the file.
            asked: the values of the first line.

        Raises:
            UsageError: the file holds something else, or answers to other questions.
            DiffSimError: it can't be written.
        """
        check_writable(path)
        self.path, self.answered = path, 0  # ``answered``: how many answers the file has
        with writing_file(path), ExitStack() as opened:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = opened.enter_context(path.open("a+b"))
            self._begin(json_line(asked))
            opened.pop_all()  # it stays open

    def _begin(self, header: bytes) -> None:
        self._file.seek(0)
        first = self._file.readline()
        if not first.endswith(b"\n") and header.startswith(first):
            self._file.truncate(0)
            self._file.write(header)
            self._file.flush()
        else:
            _check(self.path, first, json.loads(header))
            self.answered = self._cut_to_lines(len(first))

    def _cut_to_lines(self, start: int) -> int:
        """Cut off half a line at the end; return how many whole ones follow ``start``."""
        self._file.seek(start)
        lines, end, position = 0, start, start
        while block := self._file.read(_BLOCK):
            lines += block.count(b"\n")
            last = block.rfind(b"\n")
            end = end if last < 0 else position + last + 1
            position += len(block)
        self._file.truncate(end)
        return lines

    def write(self, values: Mapping[str, Any]) -> None:
        """Append one answer."""
        with writing_file(self.path):
            self._file.write(json_line(values))
            self._file.flush()
        self.answered += 1

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _check(path: Path, first: bytes, asked: Mapping[str, Any]) -> None:
    """Raise a UsageError unless the first line of a file says ``asked``."""
    try:
        stored = json.loads(first)
    except ValueError:
        stored = None
    if not isinstance(stored, dict) or stored.keys() != asked.keys():
        raise UsageError(f"{path} holds something else than answers of a search; name another file")
    differ = [name for name, value in asked.items() if stored[name] != value]
    if differ:
        raise UsageError(f"{path} holds answers to another search ({', '.join(differ)} differ); name another file")
