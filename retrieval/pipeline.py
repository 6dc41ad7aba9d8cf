"""Images to what an index keeps of them: decoded, computed and brought down batch after batch, each beside the rest.

Files are read in threads, two batches ahead; one thread gives the device a batch while the one before is written. A GPU
has the next batch already when it ends one, since results are copied on a stream of their own (:mod:`transfer`).
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from retrieval.compiled import compilable, compile_models
from retrieval.events import BuildEvent
from retrieval.ingest import FileBatch, read_batches
from retrieval.models import Models, Pending, Prepared
from retrieval.modes import Need
from retrieval.pace import workers
from retrieval.settings import BuildSettings
from retrieval.stages import COMPUTE, StageClock, one_ahead


@dataclass(frozen=True)
class Pipeline:
    """Loaded models and how they are run."""

    models: Models
    batch: int  # images
    workers: int  # threads that decode
    clock: StageClock

    @classmethod
    def begin(
        cls, models: Models, need: Need, run: BuildSettings, clock: StageClock, emit: Callable[[BuildEvent], None]
    ) -> "Pipeline":
        """Take loaded models and a run whose batch size is settled; compile what ``need`` runs, if that was asked for.

        Raises:
            UsageError, DependencyError: see :func:`retrieval.compiled.compile_models`.
        """
        size = run.batch_size or 1
        if run.compile and need.modes:
            compilable(models)  # refused before it is announced
            emit(BuildEvent("compiling", f"for batches of {size}"))
            models = compile_models(models, size)
        return cls(models, size, workers(run), clock)

    def run(
        self,
        files: Sequence[Path],
        need: Need,
        usable: Callable[[FileBatch], Sequence[Prepared]],
        leaves_room: Callable[[int], bool],
    ) -> Generator[tuple[FileBatch, Pending], None, None]:
        """Yield every batch of ``files`` in order, with what the index is to keep of its ``usable`` images.

        Told the images of a batch, ``leaves_room`` says whether the one after it belongs to the same commit.
        """
        prepare = partial(self.models.prepare, need=need)
        batches = read_batches(files, self.batch, self.workers, self.models.rules, prepare, self.clock)

        def compute(batch: FileBatch) -> tuple[Pending, int]:
            images = usable(batch)
            return self.models.begin(images, need), len(images)

        with closing(one_ahead(batches, compute, lambda batch: leaves_room(len(batch.files)))) as computed:
            for batch, (pending, images) in computed:
                self.clock.add(COMPUTE, images, pending.wait() if images else 0.0)
                yield batch, pending
