"""Images to what an index keeps of them: decoded, computed and brought down batch after batch, each beside the rest.

Files are read in threads, two batches ahead; one thread gives the device a batch while the one before is written. A GPU
has the next batch already when it ends one, since results are copied on a stream of their own (:mod:`transfer`).
"""

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from retrieval.encoding.batches import FileBatch, read_batches, workers
from retrieval.encoding.loaded_models import InFlightBatch, LoadedModels, ModelInputs
from retrieval.encoding.timing import COMPUTE, StageClock
from retrieval.models.modes import Outputs
from retrieval.settings import BuildSettings

_In = TypeVar("_In")
_Out = TypeVar("_Out")


@dataclass(frozen=True)
class Pipeline:
    """Loaded models and how they are run."""

    models: LoadedModels
    batch: int  # images
    workers: int  # threads that decode
    clock: StageClock

    @classmethod
    def begin(
        cls,
        models: LoadedModels,
        run: BuildSettings,
        clock: StageClock,
    ) -> "Pipeline":
        """Take loaded models and a run whose batch size is settled."""
        return cls(models, run.batch_size or 1, workers(run), clock)

    def run(
        self,
        files: Sequence[Path],
        need: Outputs,
        usable: Callable[[FileBatch], Sequence[ModelInputs]],
        leaves_room: Callable[[int], bool],
    ) -> Generator[tuple[FileBatch, InFlightBatch], None, None]:
        """Yield every batch of ``files`` in order, with what the index is to keep of its ``usable`` images.

        Told the images of a batch, ``leaves_room`` says whether the one after it belongs to the same commit.
        """
        prepare = partial(self.models.prepare, need=need)
        batches = read_batches(files, self.batch, self.workers, self.models.rules, prepare, self.clock)

        def compute(batch: FileBatch) -> tuple[InFlightBatch, int]:
            images = usable(batch)
            return self.models.begin(images, need), len(images)

        with closing(prefetch(batches, compute, lambda batch: leaves_room(len(batch.files)))) as computed:
            for batch, (pending, images) in computed:
                self.clock.add(COMPUTE, images, pending.wait() if images else 0.0)
                yield batch, pending


def prefetch(
    batches: Generator[_In, None, None], compute: Callable[[_In], _Out], ahead: Callable[[_In], bool]
) -> Generator[tuple[_In, _Out], None, None]:
    """Yield every batch with what ``compute`` makes of it, in order.

    Where ``ahead`` says so of a batch, the next one is computed while that one is being written: so writing does not
    keep the models waiting. What ``compute`` raises is raised here, in its place. It may return before a GPU has done
    all that it was given: then the GPU has the next batch already when it ends the one before.
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
            waiting = submit() if ahead(batch) else None
            yield batch, result
            waiting = waiting or submit()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # what is computed can be committed before the rest has ended
        batches.close()
