"""Kill builds with SIGKILL and look at what is left. Linux only.

``python -m tests.support.kill_harness FOLDER`` reads the name of a scenario a line and answers with one line of JSON.
It is a process of its own that imports everything first and then forks a child for every build, since importing torch
takes longer than a build. The parent computes nothing: a fork after threads have worked may hang.
"""

import gc
import json
import os
import pickle
import random
import shutil
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
import numpy as np
import torch
import zarr.codecs
import zarr.storage  # noqa: F401

import retrieval.models.mini.attention
import retrieval.models.mini.pooled  # noqa: F401
from index_store.layout import Layout
from index_store.reader import IndexReader
from retrieval.encoding.loaded_models import LoadedModels
from retrieval.indexing.build import build_index
from retrieval.indexing.fill import fill_index
from retrieval.indexing.maintenance import verify
from retrieval.search.engine import Engine
from retrieval.settings import BuildSettings, EngineSettings
from tests.support.faults import Operations
from tests.support.ranking import assert_same_ranking
from tests.support.sample_index import RUN, Contents, paint
from tests.support.stub_models import tiny_model

IMAGES = 60
SEGMENT = 8
BATCH = 4
KILLS = 20
ADDITION_IMAGES = 36
ADDITION_KILLS = 12
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
    with reporting_batches(say):
        build_index(photos, index, model="mini", modes=["style"], image_size=64, run=REAL)


@contextmanager
def reporting_batches(say: Say) -> Iterator[None]:
    """Say of every batch that it is about to be computed."""
    begin = LoadedModels.begin

    def reporting(self: LoadedModels, batch: Any, *rest: Any) -> Any:
        say(computing=len(batch))
        return begin(self, batch, *rest)

    with mock.patch.object(LoadedModels, "begin", reporting):
        yield


def compare_to_the_end(photos: Path, index: Path, whole: Path) -> dict[str, Any]:
    """Compare a finished index with one that was never disturbed, searches included."""

    def work(say: Say) -> None:
        engines = [Engine.open(path, EngineSettings(device="cpu")) for path in (index, whole)]
        searches = []
        for query in sorted(photos.iterdir())[:: IMAGES // 3]:
            mine, expected = (engine.search(query, "style", exhaustive=True, k=IMAGES) for engine in engines)
            assert_same_ranking(mine.results, expected.results, whole=True)
            searches.append(len(mine.results))
        say(**look(index, whole), searches=searches)

    lines, _ = Child(work).wait()
    found: dict[str, Any] = lines[0]
    return found


# --- Killed while what is lacking is added

BOTH = ["style", "instance"]


def kill_additions(folder: Path) -> dict[str, Any]:
    """Kill builds that add a mode, then fills, until enough were hit; each goes on from what is left."""
    random_numbers = random.Random(SEED + 1)
    photos, whole = folder / "more", folder / "more.diffsim"
    paint(photos, range(ADDITION_IMAGES))

    def prepare(say: Say) -> None:
        for name, modes, rule in (("more", BOTH, "eager"), ("add", BOTH[:1], "eager"), ("fill", BOTH, "lazy")):
            run = replace(REAL, attention=rule)
            index = folder / f"{name}.diffsim"
            build_index(photos, index, model="mini", modes=modes, image_size=64, run=run)
        keep_contents(whole)
        say(add=look_partial(folder / "add.diffsim", whole), fill=look_partial(folder / "fill.diffsim", whole))

    started = time.monotonic()
    first = Child(prepare).wait()[0][0]
    pace = (time.monotonic() - started) / 3 / (ADDITION_IMAGES / BATCH)
    kills: list[dict[str, Any]] = []
    finished: list[dict[str, Any]] = []
    for kind in ("add", "fill"):
        wanted = len(kills) + ADDITION_KILLS // 2
        while len(kills) < wanted:
            index = folder / f"{kind}-{len(kills)}.diffsim"
            shutil.copytree(folder / f"{kind}.diffsim", index)
            before, ended = first[kind], False
            while not ended:
                moment = random_numbers.randrange(1, 7), random_numbers.uniform(0, pace)
                after, computed, ended = one_addition(
                    photos, index, whole, kind, moment if len(kills) < wanted else None
                )
                kills += [] if ended else [{"kind": kind, "before": before, "after": after, "computed": computed}]
                before = after
            finished.append({"kind": kind, **after})
    return {"kills": kills, "finished": finished}


def one_addition(
    photos: Path, index: Path, whole: Path, kind: str, moment: tuple[int, float] | None
) -> tuple[dict[str, Any], int, bool]:
    """Add or fill, kill after so many batches and seconds, and look; see :func:`one_attempt`."""

    def work(say: Say) -> None:
        with reporting_batches(say):
            if kind == "add":
                build_index(photos, index, modes=BOTH[1:], run=REAL)
            else:
                fill_index(index, run=REAL, order=["oldest"])

    child = Child(work)
    lines = child.lines()
    computed = 0
    if moment is not None:
        batches, seconds = moment
        computed = sum(next(lines, {}).get("computing", 0) for _ in range(batches))
        time.sleep(seconds)
        child.kill()
    rest, killed = child.wait()
    after = Child(lambda say: say(**look_partial(index, whole))).wait()[0][0]
    return after, computed + sum(line["computing"] for line in rest), not killed


def look_partial(index: Path, whole: Path) -> dict[str, Any]:
    """Count what an index has of its modes, and what of it is not as in the whole one; every checksum is verified."""
    reader = IndexReader(index)
    expected: Contents = pickle.loads(whole.with_suffix(".pickle").read_bytes())
    wrong = int(reader.items() != expected.items) + len(verify(index))
    held: dict[str, int] = {}
    for mode in reader.generation.modes:
        rows = np.flatnonzero(reader.has_tensors(mode)).tolist()
        held[mode] = len(rows)
        for name, array in (reader.attention(mode, rows) if rows else {}).items():
            wrong += sum(
                a.tobytes() != expected.tensors[f"{mode}/{name}"][row] for a, row in zip(array, rows, strict=True)
            )
    for encoder in reader.generation.encoders:
        vectors, rows = reader.vectors(encoder), np.flatnonzero(reader.has_vector(encoder)).tolist()
        held[encoder] = len(rows)
        wrong += sum(vectors[row].tobytes() != expected.vectors[encoder][row] for row in rows)
    return {"held": held, "wrong": wrong}


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

    def on_progress(event: Any) -> None:
        nonlocal commits
        commits += event.stage == "commit"
        say(commits=commits)

    with tiny_model():
        build_index(
            photos, index, model="mini", modes=["style"], run=replace(RUN, segment_rows=2), on_progress=on_progress
        )


SCENARIOS = {"random": kill_at_random, "additions": kill_additions, "operations": kill_at_operations}


def main() -> None:
    """Answer scenarios until the input ends."""
    torch.set_num_threads(1)
    gc.freeze()
    folder = Path(sys.argv[1])
    for line in sys.stdin:
        print(json.dumps(SCENARIOS[line.strip()](folder)), flush=True)


if __name__ == "__main__":
    main()
