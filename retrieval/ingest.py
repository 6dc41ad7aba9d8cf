"""Read and resize image files in threads, batch after batch, a bounded number of batches ahead of the models."""

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from retrieval.errors import ImageError
from retrieval.images import DecodeRules, FileFacts, read_image
from retrieval.models import Prepared
from retrieval.stages import DECODE, StageClock
from retrieval.work import state_of

BATCHES_AHEAD = 2


@dataclass(frozen=True)
class Failure:
    """Why an image can't be used, and its file's state before it was read: it may be whole a moment later."""

    error: ImageError
    size: int  # bytes; -1: unknown
    mtime_ns: int  # -1: unknown


Outcome = tuple[FileFacts, Prepared] | Failure


@dataclass(frozen=True)
class FileBatch:
    """One batch of the plan: the files asked for and, in their order, what became of each."""

    files: tuple[Path, ...]
    outcomes: tuple[Outcome, ...]


def read_batches(
    files: Sequence[Path],
    batch_size: int,
    workers: int,
    rules: DecodeRules,
    prepare: Callable[[Image.Image], Prepared],
    clock: StageClock | None = None,
) -> Generator[FileBatch, None, None]:
    """Yield ``files`` in order, ``batch_size`` a batch, decoded and prepared.

    Batches are cut by position in ``files``, rejects included, so that a resumed build sees the batches that an
    uninterrupted one would have seen. An image that can't be used is a Failure among the outcomes. ``clock`` counts
    the work of the threads that decode.
    """
    clock = clock or StageClock(workers)

    def load(path: Path) -> Outcome:
        size, mtime_ns = state_of(path)
        with clock.working(DECODE, 1):
            try:
                image, facts = read_image(path, rules)
            except ImageError as error:
                return Failure(error, size, mtime_ns)
            return facts, prepare(image)

    starts = range(0, len(files), batch_size)
    waiting: deque[tuple[tuple[Path, ...], list[Future[Outcome]]]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        try:
            for number in range(len(starts)):
                for start in starts[number + len(waiting) : number + 1 + BATCHES_AHEAD]:
                    ahead = tuple(files[start : start + batch_size])
                    waiting.append((ahead, [pool.submit(load, path) for path in ahead]))
                chunk, futures = waiting.popleft()
                yield FileBatch(chunk, tuple(future.result() for future in futures))
        finally:
            for _, futures in waiting:
                for future in futures:
                    future.cancel()
