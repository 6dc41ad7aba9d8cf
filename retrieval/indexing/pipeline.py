"""Turn image files into encoded batches: decoding, computing and writing run side by side.

Threads decode two batches ahead. One thread gives the device a batch while the caller writes the batch before. On a
GPU the next batch is queued before the current one ends (:mod:`retrieval.devices.transfer`). On a CPU small models
compute several batches side by side, each on one core: cores that share an operation wait for each other at its end,
and for those that decode.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from retrieval.devices.prefetching import prefetch
from retrieval.devices.threads import side_by_side
from retrieval.encoding.batches import DecodingTurns, FileBatch, read_batches, workers
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
    computing: int = 1  # threads that compute a batch each

    @classmethod
    def begin(cls, models: LoadedModels, run: BuildSettings, clock: StageClock) -> "Pipeline":
        """Take loaded models, and settings whose batch size is known."""
        computing = side_by_side() if models.run_side_by_side() else 1
        clock.set_threads(COMPUTE, computing)
        return cls(models, run.batch_size or 1, workers(run), clock, computing)

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
        turns = DecodingTurns(self.batch) if self.computing > 1 else None
        batches = read_batches(files, self.batch, self.workers, self.models.rules, prepare, self.clock, turns)

        def images_of(batch: FileBatch) -> tuple[FileBatch, Sequence[ModelInputs]]:
            return batch, usable(batch)

        def compute(chosen: tuple[FileBatch, Sequence[ModelInputs]]) -> InFlightBatch:
            return self.models.begin(chosen[1], outputs)

        chosen = closing_map(images_of, batches)
        with closing(prefetch(chosen, compute, lambda each: goes_on(each[0]), self.computing)) as computed:
            for (batch, images), in_flight in computed:
                self.clock.add(COMPUTE, len(images), in_flight.wait() if images else 0.0)
                yield batch, in_flight


def closing_map(function: Callable[[_In], _Out], each: Generator[_In, None, None]) -> Generator[_Out, None, None]:
    """Yield ``function`` of each element; close the source at the end."""
    with closing(each):
        for element in each:
            yield function(element)
