"""The options that ask many questions at once: a file of queries, all items, and a file of answers."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cli.option_groups import QuestionOptions
from cli.output import Form
from cli.search import options
from cli.terminal.printing import read_stdin
from retrieval.errors import UsageError

STDIN = "-"


@dataclass(frozen=True, kw_only=True)
class ListOptions:
    """Where queries come from beside the arguments, and where their answers go."""

    query_list: options.QueryList = None
    every: options.Every = False
    out: options.Out = None

    @property
    def is_stream(self) -> bool:
        """Whether each answer is written at once, as a line."""
        return self.every or self.out is not None

    @property
    def has_others(self) -> bool:
        """Whether there are queries beside the arguments."""
        return self.every or self.query_list is not None

    def check(self, form: Form, draws: bool, asked: QuestionOptions) -> None:
        """Raise a UsageError if answers can't be lines: another form, a drawing, or a board of all items."""
        if not self.is_stream:
            return
        option = "--out" if self.out is not None else "--all"
        if draws or form not in ("table", "jsonl"):
            raise UsageError(f"{option} writes JSON lines: leave out --sheet, --explain, --json, --paths and -0")
        if self.every and (asked.combine is not None or asked.away or asked.has_region):
            raise UsageError("--all asks with each item by itself: leave out --combine, --not, --box and --mask")

    def queries(self, named: Sequence[str]) -> list[str]:
        """Return the queries: those that were ``named``, then those of the file.

        Raises:
            UsageError: none at all, more of them beside --all, or a file that can't be read.
        """
        if self.every:
            if named or self.query_list is not None:
                raise UsageError("--all asks with every item: leave out other queries")
            return []
        if self.query_list is None:
            if not named:
                raise UsageError("missing queries: name images, or ask with --queries FILE or --all")
            return list(named)
        if self.query_list == STDIN and STDIN in named:
            raise UsageError(f"{STDIN} (stdin) may be given once")
        queries = [*named, *_lines(self.query_list)]
        if not queries:
            raise UsageError(f"--queries {self.query_list} holds no query")
        return queries


def _lines(file: str) -> list[str]:
    """Return the lines of a file that are not empty, as names of files: bytes that are no UTF-8 are kept."""
    try:
        data = read_stdin() if file == STDIN else Path(file).read_bytes()
    except OSError as error:
        raise UsageError(f"--queries {file} can't be read: {error.strerror}") from error
    return [os.fsdecode(line) for line in data.replace(b"\r\n", b"\n").split(b"\n") if line.strip()]
