"""``diffsim-index plan``: the time, storage, memory, network and cost of an index of any size."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import options
from cli.index.model_options import ModelOptions
from cli.option_groups import Place, Speech, expand_groups
from cli.parsing import parse_names
from cli.terminal.printing import show, show_json
from cli.terminal.process import Speaker, duration, work_offline
from cli.terminal.progress import ProgressBar
from retrieval.errors import UsageError
from retrieval.settings import BuildSettings
from retrieval.text import human_bytes

if TYPE_CHECKING:
    from retrieval.indexing.capacity.demand import Demand
    from retrieval.indexing.capacity.plan import CapacityPlan, Stage
    from retrieval.indexing.capacity.rates import Rates

_COUNTS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9}

Samples = Annotated[
    list[Path] | None,
    typer.Argument(metavar="[SOURCE]...", help="Images like those to index; a drawn photo stands for them otherwise."),
]
Images = Annotated[str, typer.Option("--images", metavar="N", help="Images of the index, like 400000, 10M or 1B.")]
Gpus = Annotated[int | None, typer.Option("--gpus", help="GPUs that compute.")]
Processes = Annotated[
    int | None, typer.Option("--processes", help="Processes that compute on processors, in place of GPUs.")
]
Cores = Annotated[int | None, typer.Option("--cores", help="Cores of each GPU (default: 16) or process (1).")]
GpusAMachine = Annotated[int, typer.Option("--gpus-per-machine", help="GPUs, or processes, of one machine.")]
Queries = Annotated[float, typer.Option("--queries-per-second", help="Searches that are answered in a second.")]
Candidates = Annotated[int, typer.Option("--candidates", help="Candidates that each search scores exactly.")]
Network = Annotated[float, typer.Option("--network", metavar="GBIT", help="Network of one machine, in Gbit/s.")]
Store = Annotated[float, typer.Option("--store", metavar="GBIT", help="Network of the store of all files, in Gbit/s.")]
Latency = Annotated[float, typer.Option("--latency", metavar="MS", help="Milliseconds until the store answers.")]
Memory = Annotated[float, typer.Option("--memory", metavar="GB", help="Memory of one machine.")]
GpuHour = Annotated[float | None, typer.Option("--gpu-hour", metavar="PRICE", help="Price of a GPU for an hour.")]
TbMonth = Annotated[float | None, typer.Option("--tb-month", metavar="PRICE", help="Price of a stored TB for a month.")]
RatesFile = Annotated[
    Path | None,
    typer.Option("--rates", help="Take rates from this file, such as a plan's --json from a machine with the GPU."),
]


@dataclass(frozen=True, kw_only=True)
class DemandOptions:
    """The images, the searches, the machines and the prices of a plan."""

    images: Images
    gpus: Gpus = None
    processes: Processes = None
    cores: Cores = None
    gpus_per_machine: GpusAMachine = 8
    queries_per_second: Queries = 1.0
    candidates: Candidates = 200
    network: Network = 10.0
    store: Store = 100.0
    latency: Latency = 30.0
    memory: Memory = 256.0
    gpu_hour: GpuHour = None
    tb_month: TbMonth = None

    def demand(self) -> "Demand":
        """Return the library's question; UsageError for options that exclude each other."""
        from retrieval.indexing.capacity.demand import Demand

        if self.gpus is not None and self.processes is not None:
            raise UsageError("choose one of --gpus and --processes")
        return Demand(
            images=parse_count(self.images),
            devices=self.gpus or self.processes or 1,
            cores=self.cores or (16 if self.processes is None else 1),
            devices_a_machine=self.gpus_per_machine,
            queries_per_second=self.queries_per_second,
            candidates=self.candidates,
            network=self.network * 1e9 / 8,
            store=self.store * 1e9 / 8,
            memory=self.memory * 1e9,
            latency=self.latency / 1e3,
            device_hour=self.gpu_hour,
            tb_month=self.tb_month,
        )


@expand_groups
def plan(
    samples: Samples = None,
    *,
    size: DemandOptions,
    rates: RatesFile = None,
    modes: options.Modes = None,
    model: ModelOptions,
    where: Place,
    as_json: options.AsJson = False,
    speech: Speech,
) -> None:
    """Say how long an index of N images takes to build, how large it gets, and how many machines its searches need.

    The rates of the model are measured on this machine in a few seconds, or read from a file.
    """
    work_offline(where.offline)
    from retrieval.indexing.capacity.plan import plan_capacity

    demand, speaker = size.demand(), speech.speaker()
    asked: dict[str, Any] = {"modes": None if modes is None else parse_names(modes), **model.choices()}
    found = _rates(rates, samples or [], BuildSettings(device=where.device, offline=where.offline), asked, speaker)
    made = plan_capacity(demand, found)
    if size.gpus is not None and found.device == "cpu":
        speaker.note(
            "the rates are those of a processor: measure on a machine with the GPU, and give them with --rates"
        )
    if as_json:
        show_json(made.to_dict())
    else:
        _print(made)


def parse_count(text: str) -> int:
    """Read ``10M``, ``2.5K`` or a plain whole number above 0.

    Raises:
        UsageError: ``text`` is anything else.
    """
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) *([KMB]?)", text.strip().upper())
    count = int(float(found[1]) * _COUNTS[found[2]]) if found else 0
    if count < 1:
        raise UsageError(f"'{text}' is not a number of images; write it like 400000, 10M or 1B")
    return count


def _rates(
    file: Path | None, samples: list[Path], run: BuildSettings, asked: dict[str, Any], speaker: Speaker
) -> "Rates":
    """Read the rates; measure those that no file gives."""
    from retrieval.indexing.capacity.rates import Rates, missing_rates, read_rates

    given = {} if file is None else read_rates(file)
    if not missing_rates(given):
        return Rates.from_json(given)
    from retrieval.indexing.capacity.measuring import measure_rates

    with ProgressBar(speaker, state="measuring the model on a few images"):
        measured = measure_rates(samples, run=run, **asked)
    return Rates.from_json({**measured.to_json(), **given})


def _print(made: "CapacityPlan") -> None:
    demand, rates = made.demand, made.rates
    show(f"{demand.images} images, {rates.model} on {demand.devices} x {rates.device}, {demand.machines} machines")
    rows = [["stage", "time", "storage", "memory", "network", "cost", ""]]
    rows += [_row(stage) for stage in made.stages]
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    for row in rows:
        show("  ".join([row[0].ljust(widths[0]), *(row[n].rjust(widths[n]) for n in range(1, 6)), row[6]]).rstrip())
    pace = demand.images / made.build_seconds
    show(f"build: {duration(made.build_seconds)}, {pace:.1f} images/s; {made.limit} sets the pace")
    if made.next_limit:
        show(f"next limit: {made.next_limit}, from {made.next_limit_at} devices on")
    else:
        show("next limit: none that more devices reach")
    show(
        f"searches: {made.replicas} replicas ({made.replicas_for}) for {demand.queries_per_second:g} a second, "
        f"{1e3 * made.latency_seconds:.0f} ms each"
    )


def _row(stage: "Stage") -> list[str]:
    time = "" if stage.seconds is None else _time(stage.seconds)
    sizes = (stage.storage_bytes, stage.memory_bytes, stage.network_bytes)
    cost = "" if stage.cost is None else f"{stage.cost:,.0f}"
    return [stage.name, time, *(human_bytes(size) if size else "" for size in sizes), cost, stage.note]


def _time(seconds: float) -> str:
    return f"{1e3 * seconds:.0f} ms" if seconds < 1 else duration(seconds)
