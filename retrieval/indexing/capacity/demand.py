"""The question of a capacity plan: how many images and queries, on which machines, at which prices."""

from dataclasses import dataclass

from retrieval.settings.checks import at_least


@dataclass(frozen=True)
class Demand:
    """The images, the queries and the machines of a plan."""

    images: int
    devices: int = 1  # GPUs, or processes that compute on a processor
    cores: int = 16  # of a processor, for each device
    devices_a_machine: int = 8
    queries_per_second: float = 1.0
    candidates: int = 200
    modes_a_query: int = 1
    segment_rows: int = 1024
    probed: float = 0.05  # share of the vectors that an IVF search compares
    network: float = 1.25e9  # bytes a second of one machine: 10 Gbit/s
    store: float = 12.5e9  # bytes a second of the store of images and index, all machines together
    disk: float = 2e9  # bytes a second that a replica reads from its own disk
    memory: float = 256e9  # bytes of one machine
    latency: float = 0.03  # seconds that a request to the store waits
    device_hour: float | None = None  # price
    tb_month: float | None = None  # price of a stored terabyte

    def __post_init__(self) -> None:
        at_least(1, images=self.images, devices=self.devices, cores=self.cores, candidates=self.candidates)
        at_least(1, devices_a_machine=self.devices_a_machine, segment_rows=self.segment_rows)
        at_least(0, queries_per_second=self.queries_per_second, device_hour=self.device_hour, tb_month=self.tb_month)

    @property
    def machines(self) -> int:
        """The machines that hold the devices."""
        return -(-self.devices // self.devices_a_machine)

    @property
    def segments(self) -> int:
        """The segments of the index before a compaction."""
        return -(-self.images // self.segment_rows)
