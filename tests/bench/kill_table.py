"""Kill every kind of writer at random moments and print what was lost.

``python -m tests.bench.kill_table FOLDER [--kills 200]``, Linux only. Builds, updates (files changed, renamed, removed
and new), compactions, fills and repairs of a small index are killed with SIGKILL. After every kill the index is opened
and read whole; then the same command runs again, to its end.
"""

import argparse
import hashlib
import pickle
import random
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np

from index_store.errors import IndexCorruptError
from index_store.generation import read_current
from index_store.layout import Layout, twin_of
from index_store.reader import IndexReader
from retrieval.indexing.build import build_index
from retrieval.indexing.fill import fill_index
from retrieval.indexing.upkeep.compacting import compact
from retrieval.indexing.upkeep.repairing import repair, verify
from retrieval.settings import BuildSettings
from tests.support.faults import flip_bit
from tests.support.kill.child import Child, Say
from tests.support.kill.looks import REAL
from tests.support.sample_index import paint

IMAGES = 24
MODES = ["style", "instance"]

Held = dict[str, tuple[str, tuple[str | None, ...]]]
"""By path: the file's SHA-256, and a digest of the tensors of every mode, None where there are none."""


@dataclass
class Tally:
    """Counts for one kind of writer; lost, wrong, damaged and unfinished must be 0."""

    kills: int = 0
    at_work: int = 0  # kills that came before its end
    lost: int = 0  # committed items, or tensors of theirs, that belong to the end as well and were gone
    wrong: int = 0  # items with other tensors than before and at the end
    damaged: int = 0  # findings of verify that were not there at the start
    unfinished: int = 0  # run again, it did not end like one that was never killed
    reopened: int = 0


def held_by(index: Path) -> Held:
    """Read an index whole, every checksum verified; a damaged row counts as one without tensors."""
    if not Layout(index).current.exists():
        return {}
    reader = IndexReader(index)
    digests: list[list[str | None]] = [[] for _ in range(len(reader))]
    for mode in MODES:
        known = mode in reader.generation.modes
        has = reader.has_tensors(mode) if known else np.zeros(len(reader), bool)
        for row, found in enumerate(digests):
            arrays = {}
            with suppress(IndexCorruptError):
                arrays = reader.attention(mode, [row]) if has[row] else {}
            found.append(hashlib.sha256(b"".join(a.tobytes() for a in arrays.values())).hexdigest() if arrays else None)
    return {item.uri: (item.sha256, tuple(d)) for item, d in zip(reader.items(), digests, strict=True)}


def build(source: Path, index: Path, run: BuildSettings = REAL) -> None:
    """Index ``source``, or bring the index up to date with it."""
    codec = None if Layout(index).current.exists() else "qkv-float16"  # tensors of two modes, three files each
    build_index(source, index, model="cells", modes=MODES, image_size=64, codec=codec, run=run)


def prepare(folder: Path) -> None:
    """Build the indexes at the start, then change the files of ``moving``."""
    paint(folder / "photos", range(IMAGES))
    paint(folder / "moving", range(IMAGES))
    build(folder / "photos", folder / "whole.diffsim")
    build(folder / "moving", folder / "old.diffsim")
    build(folder / "photos", folder / "lazy.diffsim", BuildSettings(device="cpu", segment_rows=8, attention="lazy"))
    shutil.copytree(folder / "whole.diffsim", folder / "hurt.diffsim")
    layout = Layout(folder / "hurt.diffsim")
    first, second = (segment.name for segment in read_current(layout).segments[:2])
    flip_bit(layout.attention("style", first) / "q/c/0/0/0/0/0", 100)
    flip_bit(layout.vectors(second, "descriptor"), 2000)
    flip_bit(layout.segment(second) / twin_of("items.parquet"), 2000)
    for number in range(4):
        (folder / "moving" / f"{number:03d}.png").unlink()
        (folder / "moving" / f"{number + 4:03d}.png").rename(folder / "moving" / f"renamed{number}.png")
    paint(folder / "moving", range(8, 12), seed=1)
    paint(folder / "moving", range(IMAGES, IMAGES + 6))


def writers(folder: Path) -> dict[str, tuple[str | None, Callable[[Path], object]]]:
    """Return the index at the start and the command, by kind of writer."""
    return {
        "build": (None, lambda index: build(folder / "photos", index)),
        "update": ("old", lambda index: build_index(folder / "moving", index, run=REAL)),
        "compact": ("whole", lambda index: compact(index)),
        "fill": ("lazy", lambda index: fill_index(index, run=REAL)),
        "repair": ("hurt", lambda index: repair(index)),
    }


def findings(index: Path) -> set[str]:
    """Return what verify finds; nothing where no index is yet."""
    return {damage.what for damage in verify(index)} if Layout(index).current.exists() else set()


def in_child(work: Callable[[], object], result: Path) -> None:
    """Run ``work`` in a child, so that the parent computes nothing, and pickle its result."""

    def run(_: Say) -> None:
        result.write_bytes(pickle.dumps(work()))

    Child(run).wait()


def run_and_look(command: Callable[[Path], object], index: Path, result: Path) -> tuple[Held, float]:
    """Run a writer to its end; return the contents of the index and the seconds."""

    def work() -> tuple[Held, float]:
        began = time.monotonic()
        command(index)
        seconds = time.monotonic() - began
        return held_by(index), seconds

    in_child(work, result)
    found: tuple[Held, float] = pickle.loads(result.read_bytes())
    return found


def kill_writer(folder: Path, kind: str, kills: int, seed: int) -> Tally:
    """Kill one kind of writer ``kills`` times, each time from the same start."""
    start, command = writers(folder)[kind]
    scratch, result, random_numbers = folder / "scratch.diffsim", folder / "result.pickle", random.Random(seed)

    def begin() -> None:
        shutil.rmtree(scratch, ignore_errors=True)
        if start is not None:
            shutil.copytree(folder / f"{start}.diffsim", scratch)

    begin()
    in_child(lambda: (held_by(scratch), findings(scratch)), result)
    before: Held
    before, known = pickle.loads(result.read_bytes())
    (end, duration), tally = run_and_look(command, scratch, result), Tally()
    while tally.kills < kills:
        begin()
        child = Child(lambda _: command(scratch))
        time.sleep(random_numbers.uniform(0, duration))
        child.kill()
        tally.at_work += child.wait()[1]
        tally.kills += 1
        in_child(lambda: (held_by(scratch), findings(scratch)), result)
        held, damages = pickle.loads(result.read_bytes())
        tally.reopened += 1
        tally.damaged += len(damages - known)
        count_differences(tally, before, held, end)
        tally.unfinished += run_and_look(command, scratch, result)[0] != end
    return tally


def count_differences(tally: Tally, before: Held, held: Held, end: Held) -> None:
    """Count items that were lost, and items that are neither as before nor as at the end."""
    for uri, (sha256, tensors) in held.items():
        known = [state[uri][1] for state in (before, end) if uri in state and state[uri][0] == sha256]
        allowed = [{each[place] for each in known} | {None} for place in range(len(MODES))]
        tally.wrong += not known or any(digest not in each for digest, each in zip(tensors, allowed, strict=True))
    for uri, state in before.items():
        if end.get(uri, ("", ()))[0] != state[0]:
            continue  # it does not belong to the end
        there = held.get(uri, ("", ()))[1]
        tally.lost += not there or any(was and not now for was, now in zip(state[1], there, strict=True))


def main() -> None:
    """Read the command line, kill, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True)
    Child(lambda say: prepare(asked.folder)).wait()
    print("| writer | kills | at work | lost | wrong | damaged | not finished | opened |\n" + "|---" * 8 + "|")
    kinds = list(writers(asked.folder))
    for kind in kinds:
        tally = kill_writer(asked.folder, kind, -(-asked.kills // len(kinds)), asked.seed)
        print(f"| {kind} | " + " | ".join(str(number) for number in astuple(tally)) + " |", flush=True)


if __name__ == "__main__":
    main()
