"""Turn image files into encoded batches: decoding, computing and writing run side by side.

Threads decode two batches ahead. One thread gives the device a batch while the caller writes the batch before. On a
GPU the next batch is queued before the current one ends (:mod:`retrieval.devices.transfer`).
"""

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from retrieval.encoding.batches import FileBatch, read_batches, workers
from retrieval.encoding.encoded_batches import InFlightBatch
from retrieval.encoding.loaded_models import LoadedModels, ModelInputs
from retrieval.encoding.timing import COMPUTE, StageClock
from retrieval.models.modes import Outputs
from retrieval.settings import BuildSettings

_In = TypeVar("_In")
_Out = TypeVar("_Out")


@dataclass(frozen=True)
class Pipeline:
    """Loaded models, and how many images they get at a time."""

    models: LoadedModels
    batch: int  # images
    workers: int  # decoding threads
    clock: StageClock

    @classmethod
    def begin(cls, models: LoadedModels, run: BuildSettings, clock: StageClock) -> "Pipeline":
        """Take loaded models, and settings whose batch size is known."""
        return cls(models, run.batch_size or 1, workers(run), clock)

    def run(
        self,
        files: Sequence[Path],
        outputs: Outputs,
        usable: Callable[[FileBatch], Sequence[ModelInputs]],
        goes_on: Callable[[FileBatch], bool],
    ) -> Generator[tuple[FileBatch, InFlightBatch], None, None]:
        """Yield the batches of ``files`` in order, each with ``outputs`` of its ``usable`` images.

        Ends early after the first batch for which ``goes_on`` returns False.
        """
        prepare = partial(self.models.prepare, outputs=outputs)
        batches = read_batches(files, self.batch, self.workers, self.models.rules, prepare, self.clock)

        def compute(batch: FileBatch) -> tuple[InFlightBatch, int]:
            images = usable(batch)
            return self.models.begin(images, outputs), len(images)

        with closing(prefetch(batches, compute, goes_on)) as computed:
            for batch, (in_flight, images) in computed:
                self.clock.add(COMPUTE, images, in_flight.wait() if images else 0.0)
                yield batch, in_flight


def prefetch(
    batches: Generator[_In, None, None], compute: Callable[[_In], _Out], goes_on: Callable[[_In], bool]
) -> Generator[tuple[_In, _Out], None, None]:
    """Yield every batch with the result of ``compute``, in order; compute the next batch while the caller uses one.

    Ends early after the first batch for which ``goes_on`` returns False: no batch is computed that nobody asks for.
    An error of ``compute`` is raised at its own batch. On a GPU ``compute`` only launches work, so the next batch is
    queued before the current one ends.
    """
    pool = ThreadPoolExecutor(1, thread_name_prefix="compute")

    def submit() -> tuple[_In, Future[_Out]] | None:
        batch = next(batches, None)
        return None if batch is None else (batch, pool.submit(compute, batch))

    try:
        waiting = submit()
        while waiting is not None:
            batch, future = waiting
            result = future.result()
            waiting = submit() if goes_on(batch) else None
            yield batch, result
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # complete batches are committed without waiting for the rest
        batches.close()
