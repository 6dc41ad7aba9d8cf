"""Mutated images for the decoder, in a child process with limits: crashes, hangs and memory are counted.

``python -m tests.images.fuzzing 2000`` prints the table.
"""

import contextlib
import multiprocessing
import resource
import sys
import time
import warnings
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from retrieval.errors import ImageError
from retrieval.images.decoding import DecodeRules, decode_bytes
from tests.images.odd.encoded import saved
from tests.images.odd.picture import SPACES, bytes_of, grey, image, picture
from tests.images.odd.png_files import palette, png
from tests.images.odd.profiles import rgb_profile
from tests.images.odd.tiff_files import tiff_of
from tests.support.encoded_images import SAMPLES

HANG_SECONDS = 10.0
GIVEN_UP = 60.0  # seconds after which a child is killed; its first answer comes after its imports
MEMORY_BYTES = 2 << 30  # of address space that decoding one image may take beside the loaded program
RULES = DecodeRules(max_pixels=2**24)
IMAGES_A_CHILD = 250


@dataclass
class Outcome:
    """What became of the images of one format."""

    counts: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0  # seconds
    bad: list[int] = field(default_factory=list)  # numbers of images that crashed, hung or took too much


def seeds() -> dict[str, list[bytes]]:
    """Return whole files by format."""
    found: dict[str, list[bytes]] = {}
    for name, data in SAMPLES.items():
        found.setdefault(name.split()[0].replace("MPO", "JPEG").replace("DIB", "BMP"), []).append(data)
    for kind in ("JPEG", "PNG", "TIFF", "WEBP", "AVIF"):
        found[kind].append(saved(image(picture()), kind, icc_profile=rgb_profile(SPACES[0])))
    found["PNG"] += [palette(4, True)[0], png(bytes_of(picture()), 2, 8, b"", True)]
    found["TIFF"] += [
        tiff_of(grey().astype(np.float32), 32, 1, "float", "<"),
        tiff_of(bytes_of(grey()), 8, 0, "uint", ">"),
    ]
    found["HEIC"] = [saved(image(picture()), "HEIC")]
    return found


def mutated(number: int, files: dict[str, list[bytes]]) -> tuple[str, bytes]:
    """Return the format and the bytes of one image; the same number gives the same bytes."""
    rng = np.random.default_rng([7, number])
    kind = sorted(files)[number % len(files)]
    choice = files[kind]
    data = bytearray(choice[rng.integers(len(choice))])
    for _ in range(rng.integers(1, 5)):
        _damage(data, rng)
    return kind, bytes(data)


def _damage(data: bytearray, rng: np.random.Generator) -> None:
    """Change bits or numbers, mostly near the start where headers are; cut, repeat, insert or blank a part."""
    reach = len(data) if rng.random() < 0.5 else min(len(data), 200)
    at, length = int(rng.integers(4, max(5, reach))), int(rng.integers(1, 64))
    way = rng.integers(7)
    if way == 0:
        data[at : at + 1] = bytes([data[min(at, len(data) - 1)] ^ (1 << int(rng.integers(8)))])
    elif way == 1:
        extreme = (
            b"\xff\xff\xff\xff",
            b"\0\0\0\0",
            b"\x7f\xff\xff\xff",
            b"\x80\0\0\0",
            b"\0\0\xff\xff",
            b"\xff\xff\0\0",
        )
        data[at : at + 4] = extreme[rng.integers(len(extreme))]
    elif way == 2:
        data[at : at + length] = rng.bytes(length)
    elif way == 3:
        del data[at : at + length]
    elif way == 4:
        data[at:at] = data[at : at + length] * int(rng.integers(1, 20))
    elif way == 5:
        data[at : at + length] = bytes(length)
    else:
        del data[max(at, len(data) // 2) :]


def _child(pipe: Connection, files: dict[str, list[bytes]]) -> None:
    """Decode the images whose numbers arrive; answer with what became of each."""
    warnings.simplefilter("ignore")
    decode_bytes(files["JPEG"][0], "warm", RULES)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY_BYTES,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(EOFError):
        while True:
            kind, data = mutated(pipe.recv(), files)
            pipe.send((kind, *_decoded(data)))


def _decoded(data: bytes) -> tuple[str, float]:
    start = time.perf_counter()
    try:
        decode_bytes(data, "x", RULES)
        what = "decoded"
    except ImageError as error:
        what = "refused" if str(error).isprintable() and len(str(error)) < 400 else "refused badly"
    except MemoryError:
        what = "memory"
    except Exception as error:
        what = f"raised {type(error).__name__}"
    return what, time.perf_counter() - start


def run(numbers: range) -> dict[str, Outcome]:
    """Decode the mutated images of these numbers, each child some hundred; return the outcomes by format."""
    files = seeds()
    outcomes = {kind: Outcome() for kind in files}
    waiting = list(numbers)
    while waiting:
        waiting = _run_child(waiting, files, outcomes)
    return outcomes


def _run_child(waiting: list[int], files: dict[str, list[bytes]], outcomes: dict[str, Outcome]) -> list[int]:
    """Give images to one child until it ends, hangs, or has had enough; return those that are left."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    child = context.Process(target=_child, args=(there, files), daemon=True)
    child.start()
    there.close()
    try:
        for done, number in enumerate(waiting[:IMAGES_A_CHILD]):
            if not _ask(here, number, files, outcomes):
                return waiting[done + 1 :]
        return waiting[IMAGES_A_CHILD:]
    finally:
        here.close()
        child.kill()
        child.join()


def _ask(pipe: Connection, number: int, files: dict[str, list[bytes]], outcomes: dict[str, Outcome]) -> bool:
    """Have one image decoded; return whether the child can take another."""
    pipe.send(number)
    try:
        kind, what, seconds = pipe.recv() if pipe.poll(GIVEN_UP) else (mutated(number, files)[0], "hang", GIVEN_UP)
    except EOFError:
        kind, what, seconds = mutated(number, files)[0], "crash", 0.0
    if seconds > HANG_SECONDS:
        what = "hang"
    outcome = outcomes[kind]
    outcome.counts[what] += 1
    outcome.slowest = max(outcome.slowest, seconds)
    if what not in ("decoded", "refused"):
        outcome.bad.append(number)
    return what not in ("hang", "crash")


def table(outcomes: dict[str, Outcome]) -> str:
    """Return the counts by format as lines."""
    names = ["decoded", "refused", "crash", "hang", "memory"]
    lines = [f"{'format':8}" + "".join(f"{name:>9}" for name in names) + f"{'other':>9}{'slowest':>10}"]
    for kind, outcome in outcomes.items():
        other = sum(outcome.counts.values()) - sum(outcome.counts[name] for name in names)
        counts = "".join(f"{outcome.counts[name]:9}" for name in names)
        lines.append(f"{kind:8}{counts}{other:9}{outcome.slowest:8.2f} s")
    return "\n".join(lines)


if __name__ == "__main__":
    found = run(range(int(sys.argv[1]) if len(sys.argv) > 1 else 2000))
    print(table(found))
    print({kind: outcome.bad for kind, outcome in found.items() if outcome.bad})
