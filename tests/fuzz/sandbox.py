"""Open, search, verify, build and repair mutated indexes in child processes that are watched.

Watched are: every audit event of Python that opens, removes, renames or makes a file; by inotify, every access to the
folder outside, which sees FAISS's and Arrow's own code too; signals; CPU time; and memory.
"""

import ctypes
import json
import os
import random
import resource
import shutil
import signal
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from index_store.errors import DiffSimError
from retrieval import Engine, EngineSettings
from retrieval.indexing.build import build_index
from retrieval.indexing.upkeep.repairing import repair, verify
from retrieval.search.results import Results
from tests.fuzz.mutations import Mutated, mutate
from tests.support.sample_index import RUN

CPU_SECONDS, WALL_SECONDS = 10, 600  # of one operation; the wall's time is long because machines are shared
MEMORY = 2 << 30  # bytes more than at the start
WRITES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "os.chmod")
Answers = list[tuple[str, float]]


@dataclass
class Base:
    """An index to mutate, and the right answers."""

    index: Path
    photos: Path
    query: Path
    answers: dict[str, Answers] = field(default_factory=dict)


@dataclass
class Tally:
    """Outcomes of all mutations; ``failures`` is empty if nothing went wrong."""

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)  # by kind of mutation, and outcome
    failures: list[str] = field(default_factory=list)

    def table(self) -> str:
        """Return a Markdown table of outcomes by kind of mutation."""
        columns = sorted({outcome for _, outcome in self.outcomes})
        lines = [f"| mutation | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
        for kind in sorted({kind for kind, _ in self.outcomes}):
            counts = " | ".join(str(self.outcomes[kind, each]) for each in columns)
            lines += [f"| {kind} | {counts} |"]
        return "\n".join(lines)


class Watch:
    """Every access to a folder tree, by inotify: also those of native code."""

    def __init__(self, folder: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = libc.inotify_init1(os.O_NONBLOCK)
        for each in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
            assert libc.inotify_add_watch(self._descriptor, os.fsencode(each), 0xFFF) >= 0

    def close(self) -> None:
        """Hear no more: a user may have 128 of these at a time."""
        os.close(self._descriptor)

    def seen(self) -> bool:
        """Say whether there was an access since the last call."""
        try:
            return bool(os.read(self._descriptor, 1 << 16))
        except BlockingIOError:
            return False


class Guard:
    """Notes file operations outside ``inside``; installed once in a child process, for ever."""

    def __init__(self, inside: Path, readable: list[Path]) -> None:
        self.found: list[str] = []
        self._inside = os.path.realpath(inside)
        system = (sys.prefix, sys.base_prefix, "/proc", "/sys")
        self._readable = tuple(os.path.realpath(path) for path in (*readable, *system))
        self.active = False
        self._opening = threading.local()
        self._own_open = os.open
        os.open = self._open  # the event of an opened file does not tell the folder that its name is in
        sys.addaudithook(self._hear)

    def _open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        self._opening.folder = dir_fd
        try:
            return self._own_open(path, flags, mode, dir_fd=dir_fd)
        finally:
            self._opening.folder = None

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.active or (event != "open" and event not in WRITES):
            return
        if event == "open":
            path, mode, flags = arguments
            writes = bool(flags & (os.O_WRONLY | os.O_RDWR)) if isinstance(flags, int) else "r" not in str(mode)
            paths = [path]
        else:
            writes, paths = True, [each for each in arguments if isinstance(each, str | bytes | os.PathLike)]
        known = (
            [getattr(self._opening, "folder", None)]
            if event == "open"
            else arguments[2 if event == "os.mkdir" else 1 :]
        )
        folder = next((each for each in known if type(each) is int and each > 2), None)
        for path in paths:
            if isinstance(path, str | bytes | os.PathLike):
                self._check(event, os.fsdecode(path), writes, folder)

    def _check(self, event: str, path: str, writes: bool, folder: int | None) -> None:
        if folder is not None and event != "os.chmod" and not os.path.isabs(path):
            with suppress(OSError):
                path = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), path)
        # The folder that holds the name; the name itself may be a link, which is opened without being followed.
        where = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
        roots = (self._inside,) if writes else (self._inside, *self._readable)
        if not any(where == root or where.startswith(root + os.sep) for root in roots) and where != os.devnull:
            self.found.append(f"{event} {where}")


def answers_of(engine: Engine, query: Path) -> tuple[dict[str, Answers], bool]:
    """Return the results of two searches, and whether they say that something is missing."""
    found: list[Results] = [engine.search(query, k=4), engine.search(query, k=4, rerank=False)]
    exact, coarse = ([(result.path, result.shown_score) for result in each] for each in found)
    return {"exact": exact, "coarse": coarse}, any(each.notes or each.left_out for each in found)


def _same(first: Answers, second: Answers) -> bool:
    return [path for path, _ in first] == [path for path, _ in second] and np.allclose(
        [score for _, score in first], [score for _, score in second], atol=1e-5
    )


def run_case(base: Base, number: int, folder: Path, outside: Path, begin: Callable[[str], None]) -> dict[str, Any]:
    """Mutate a copy of ``base`` as ``number`` says and use it; return the outcome and what is wrong."""
    root = folder / "x.diffsim"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(base.index, root)
    done = mutate(root, outside, random.Random(number))
    wrong: list[str] = []
    outcomes = {
        "search": _attempt("search", lambda: _search(base, root, done, wrong), begin, wrong),
        "verify": _attempt("verify", lambda: "damage" if verify(root) else "whole", begin, wrong),
        "build": _attempt("build", lambda: _build(base, root), begin, wrong),
        "repair": _attempt("repair", lambda: "mended" if repair(root).damages else "whole", begin, wrong),
        "again": _attempt("again", lambda: _search(base, root, done, wrong, grown=True), begin, wrong),
    }
    return {
        "kind": done.kind,
        "done": str(done),
        "outcome": outcomes["search"],
        "wrong": [f"{number} {done}: {each}" for each in wrong],
    }


def _attempt(name: str, act: Callable[[], str], begin: Callable[[str], None], wrong: list[str]) -> str:
    begin(name)
    try:
        return act()
    except DiffSimError as error:
        if not str(error) or "\n" in str(error):
            wrong.append(f"{name}: an error without one sentence: {error!r}")
        return "error"
    except BaseException as error:
        where = [f"{frame.filename[-40:]}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)[-3:]]
        wrong.append(f"{name}: {type(error).__name__}: {str(error)[:200]} at {where}")
        return "traceback"


def _search(base: Base, root: Path, done: Mutated, wrong: list[str], grown: bool = False) -> str:
    found, noted = answers_of(Engine.open(root, EngineSettings(device="cpu")), base.query)
    scores = [score for each in found.values() for _, score in each]
    if not all(-1 <= score <= 1 for score in scores):
        wrong.append(f"search: scores {scores}")
    if grown:
        return "same"
    same = all(_same(found[name], base.answers[name]) for name in found)
    if not same and not noted and not done.authored:
        wrong.append(f"search: {found} instead of {base.answers}")
    return "same" if same else "noted" if noted else "other"


def _build(base: Base, root: Path) -> str:
    build_index(base.photos, root, run=RUN)
    return "built"


def _child(base: Base, numbers: list[int], folder: Path, outside: Path, pipe: int) -> None:
    guard = Guard(folder, [base.photos, base.index.parent, Path(__file__).parents[2]])
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    os.fsync = lambda descriptor: None
    torch.set_num_threads(1)  # a copied process has none of torch's running threads, and would wait for them

    def say(**values: Any) -> None:
        os.write(pipe, json.dumps(values).encode() + b"\n")

    for number in numbers:

        def begin(name: str, number: int = number) -> None:
            signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
            signal.alarm(WALL_SECONDS)
            guard.active = True
            say(number=number, begin=name)

        found = run_case(base, number, folder, outside, begin)
        guard.active = False
        found["wrong"] += [f"{number} {found['kind']}: outside: {each}" for each in guard.found]
        guard.found.clear()
        say(number=number, **found)


def run_all(base: Base, numbers: list[int], folder: Path, outside: Path) -> Tally:
    """Run every case; a child that dies is a failure, and another one goes on."""
    with closing(Watch(outside)) as watch:
        return _run_watched(base, numbers, folder, outside, watch)


def _run_watched(base: Base, numbers: list[int], folder: Path, outside: Path, watch: Watch) -> Tally:
    tally, waiting = Tally(), list(numbers)
    before = sorted((str(path), path.stat().st_mtime_ns) for path in outside.rglob("*"))
    watch.seen()
    while waiting:
        last = ""
        for message in _messages(base, waiting[:100], folder, outside):
            if "begin" in message:
                last = f"{message['number']} in {message['begin']}"
                continue
            waiting.remove(message["number"])
            tally.outcomes[message["kind"], message["outcome"]] += 1
            tally.failures += message["wrong"]
            if watch.seen():
                tally.failures.append(f"{message['number']} {message['done']}: the folder outside was touched")
            last = ""
        if last:
            number = int(last.split()[0])
            tally.failures.append(f"{last}: the process ended")
            waiting = [each for each in waiting if each != number]
    assert before == sorted((str(path), path.stat().st_mtime_ns) for path in outside.rglob("*"))
    return tally


def _messages(base: Base, numbers: list[int], folder: Path, outside: Path) -> Iterator[dict[str, Any]]:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        code = 1
        try:
            with open(os.devnull, "w") as nothing:
                os.dup2(nothing.fileno(), 1)
            _child(base, numbers, folder, outside, writing)
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)
    os.waitpid(child, 0)
