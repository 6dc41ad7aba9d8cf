"""Kill builds with SIGKILL and look at what is left. Linux only.

``python -m tests.kill_harness FOLDER`` reads the name of a scenario a line and answers with one line of JSON. It is a
process of its own that imports everything first and then forks a child for every build, since importing torch
takes longer than a build. The parent computes nothing: a fork after threads have worked may hang.
"""

import gc
import json
import os
import pickle
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn
from unittest import mock

import faiss  # noqa: F401  (imported here so that no child has to)
import filelock  # noqa: F401
import torch
import zarr.codecs
import zarr.storage  # noqa: F401

import retrieval.backbones.descriptor
import retrieval.backbones.mini  # noqa: F401
from index_store.layout import Layout
from index_store.reader import IndexReader
from retrieval.build import build_index
from retrieval.engine import Engine
from retrieval.models import Models
from retrieval.settings import BuildSettings, EngineSettings
from tests.tiny import RUN, Contents, Operations, paint, tiny_model

IMAGES = 60
SEGMENT = 8
BATCH = 4
KILLS = 20
SEED = 5
REAL = BuildSettings(device="cpu", batch_size=BATCH, segment_rows=SEGMENT, workers=1)

Say = Callable[..., None]


class Child:
    """A forked process that runs ``work(say)``; what it says arrives here line by line, even if it is killed."""

    def __init__(self, work: Callable[[Say], None]) -> None:
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


def _live(work: Callable[[Say], None], writing: int) -> NoReturn:
    def say(**words: Any) -> None:
        os.write(writing, (json.dumps(words) + "\n").encode())

    try:
        work(say)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)


def keep_contents(index: Path) -> None:
    """Read an index once, for :func:`look` to compare others with."""
    index.with_suffix(".pickle").write_bytes(pickle.dumps(Contents.of(index)))


def look(index: Path, whole: Path) -> dict[str, Any]:
    """Read an index with all checksums, and compare it with as many first images of the whole one."""
    if not Layout(index).current.exists():
        return {"segments": 0, "items": 0, "differences": []}
    found: Contents = Contents.of(index)
    expected: Contents = pickle.loads(whole.with_suffix(".pickle").read_bytes())
    first = replace(expected.first(len(found.items)), rejects=expected.rejects[: len(found.rejects)])
    segments = len(IndexReader(index).generation.segments)
    return {"segments": segments, "items": len(found.items), "differences": found.differences(first)}


# --- Killed at random moments


def kill_at_random(folder: Path) -> dict[str, Any]:
    """Kill builds until enough were hit; every build goes on from what the last one left."""
    random_numbers = random.Random(SEED)
    photos, whole = folder / "photos", folder / "whole.diffsim"
    paint(photos, range(IMAGES))
    started = time.monotonic()
    Child(lambda say: build_reporting(photos, whole, say)).wait()
    pace = (time.monotonic() - started) / (IMAGES / BATCH)
    Child(lambda say: keep_contents(whole)).wait()
    kills: list[dict[str, Any]] = []
    finished: list[dict[str, Any]] = []
    done = False
    while not done:
        index = folder / f"{len(finished)}.diffsim"
        moment = random_numbers.randrange(IMAGES // BATCH // 2), random_numbers.uniform(0, pace)
        before, computed, ended = one_attempt(photos, index, whole, moment if len(kills) < KILLS else None)
        if kills and "after" not in kills[-1]:
            kills[-1]["after"] = before
        if ended:
            finished.append(compare_to_the_end(photos, index, whole))
            done = len(kills) == KILLS
        else:
            kills.append({"before": before, "computed": computed})
    return {"kills": kills, "finished": finished}


def one_attempt(
    photos: Path, index: Path, whole: Path, moment: tuple[int, float] | None
) -> tuple[dict[str, Any], int, bool]:
    """Look, build, and kill after so many batches and seconds.

    Returns:
        what was seen at first, how many images were computed then, and whether the build ended by itself.
    """

    def work(say: Say) -> None:
        say(**look(index, whole))
        build_reporting(photos, index, say)

    child = Child(work)
    lines = child.lines()
    before = next(lines)
    computed = 0
    if moment is not None:
        batches, seconds = moment
        for _ in range(batches):
            computed += next(lines, {}).get("computing", 0)
        time.sleep(seconds)
        child.kill()
    rest, killed = child.wait()
    return before, computed + sum(line["computing"] for line in rest), not killed


def build_reporting(photos: Path, index: Path, say: Say) -> None:
    """Build, and say of every batch that it is about to be computed."""
    encode = Models.encode

    def reporting(self: Models, batch: Any, *rest: Any) -> Any:
        say(computing=len(batch))
        return encode(self, batch, *rest)

    with mock.patch.object(Models, "encode", reporting):
        build_index(photos, index, model="mini", modes=["style"], image_size=64, run=REAL)


def compare_to_the_end(photos: Path, index: Path, whole: Path) -> dict[str, Any]:
    """Compare a finished index with one that was never disturbed, searches included."""

    def work(say: Say) -> None:
        engines = [Engine.open(path, EngineSettings(device="cpu")) for path in (index, whole)]
        searches = []
        for query in sorted(photos.iterdir())[:: IMAGES // 3]:
            mine, expected = (engine.search(query, "style", exhaustive=True, k=IMAGES) for engine in engines)
            searches.append(mine.results == expected.results)
        say(**look(index, whole), searches=searches)

    lines, _ = Child(work).wait()
    found: dict[str, Any] = lines[0]
    return found


# --- Killed at every durable operation


def kill_at_operations(folder: Path) -> dict[str, Any]:
    """Kill a small build at each of its flushes and replacements in turn, and resume it."""
    photos, whole = folder / "few", folder / "few.diffsim"
    paint(photos, range(4))
    (photos / "001.png").write_bytes(b"no image")

    def undisturbed(say: Say) -> None:
        with counting(folder, 0) as operations:
            build_small(photos, whole, say)
        keep_contents(whole)
        say(operations=operations.count)

    *_, counted = Child(undisturbed).wait()[0]
    kept: list[dict[str, Any]] = []
    commits = 0
    for number in range(1, counted["operations"] + 2):
        previous, index = folder / f"few{number - 1}.diffsim", folder / f"few{number}.diffsim"

        def work(say: Say, previous: Path = previous, index: Path = index, number: int = number) -> None:
            if number > 1:
                say(kept=look(previous, whole))
                with counting(folder, 0):  # nothing has to be flushed
                    build_small(photos, previous)
                say(resumed=look(previous, whole))
            with counting(folder, number):
                build_small(photos, index, say)

        lines, killed = Child(work).wait()
        answers = {name: value for line in lines for name, value in line.items()}
        if number > 1:
            kept.append({"kept": answers["kept"], "resumed": answers["resumed"], "commits": commits})
        if killed != (number <= counted["operations"]):
            raise RuntimeError(f"operation {number} of {counted['operations']}: killed is {killed}")
        commits = answers.get("commits", 0)
    return {"operations": counted["operations"], "kept": kept}


@contextmanager
def counting(folder: Path, number: int) -> Iterator[Operations]:
    """Kill this process at the n-th flush or replacement."""
    with Operations(folder, number, lambda: os.kill(os.getpid(), signal.SIGKILL), only_durable=True).watched() as found:
        yield found


def build_small(photos: Path, index: Path, say: Say = lambda **words: None) -> None:
    """Build two segments with the tiny model; say how many are committed."""
    commits = 0

    def on_event(event: Any) -> None:
        nonlocal commits
        commits += event.kind == "committed"
        say(commits=commits)

    with tiny_model():
        build_index(photos, index, model="mini", modes=["style"], run=replace(RUN, segment_rows=2), on_event=on_event)


SCENARIOS = {"random": kill_at_random, "operations": kill_at_operations}


def main() -> None:
    """Answer scenarios until the input ends."""
    torch.set_num_threads(1)
    gc.freeze()
    folder = Path(sys.argv[1])
    for line in sys.stdin:
        print(json.dumps(SCENARIOS[line.strip()](folder)), flush=True)


if __name__ == "__main__":
    main()
