"""The options by which several processes or machines build, fill or verify one index."""

from dataclasses import dataclass
from typing import Annotated

import typer

from retrieval.errors import UsageError
from retrieval.settings import WorkerSettings

_DEFAULT = WorkerSettings()
LOCAL = "local"

Processes = Annotated[
    int | None, typer.Option("--processes", help="Divide the work among this many processes, each with its own model.")
]
Ray = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="ADDRESS",
        help=f"Divide the work on a Ray cluster: an address, auto to find one, or {LOCAL} to start one here.",
    ),
]
RayWorkers = Annotated[
    int | None, typer.Option("--ray-workers", help="Use this many workers. (default: as many as the cluster holds)")
]
WorkerCpus = Annotated[float, typer.Option("--worker-cpus", help="Give each Ray worker this many processors.")]
WorkerGpus = Annotated[
    float, typer.Option("--worker-gpus", help="Give each Ray worker this many GPUs; 0.5 puts two on one.")
]


@dataclass(frozen=True, kw_only=True)
class PoolOptions:
    """The workers of a build, a fill or a check."""

    processes: Processes = None
    ray: Ray = None
    ray_workers: RayWorkers = None
    worker_cpus: WorkerCpus = _DEFAULT.cpus
    worker_gpus: WorkerGpus = _DEFAULT.gpus

    def settings(self) -> WorkerSettings | None:
        """Return the library's settings; None where this process does the work.

        Raises:
            UsageError: options that exclude each other.
        """
        if self.processes is not None and self.ray is not None:
            raise UsageError("choose one of --processes and --ray")
        if self.ray is None:
            if (self.ray_workers, self.worker_cpus, self.worker_gpus) != (None, _DEFAULT.cpus, _DEFAULT.gpus):
                raise UsageError("--ray-workers, --worker-cpus and --worker-gpus are of --ray")
            return None if self.processes is None else WorkerSettings("processes", self.processes)
        address = None if self.ray == LOCAL else self.ray
        return WorkerSettings("ray", self.ray_workers, address, self.worker_cpus, self.worker_gpus)
