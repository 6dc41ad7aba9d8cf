"""A capacity plan: the time, storage, memory, network and cost of every stage, and where the next limit lies.

Workers decode, compute, write and upload side by side, so the slowest of these sets their pace. The driver commits
segments while they work, those that are finished together. A search sends its query to every replica, and each scores
candidates of its own.
"""

from dataclasses import asdict, dataclass, replace
from math import ceil
from typing import Any

from retrieval.indexing.capacity.demand import Demand
from retrieval.indexing.capacity.rates import Rates

MOST_DEVICES = 4096  # up to which the next limit is looked for
MONTH = 730 * 3600  # seconds
LIST_PAGE = 1000  # names that one request to an object store lists
IVF_FROM = 20_000  # vectors from which a search compares a part of them
BUSY = 0.6  # share of the time that a replica may work: above, queries wait for each other


@dataclass(frozen=True)
class Stage:
    """One stage. ``seconds`` is its time if nothing else held it up; None for what lasts as long as the service."""

    name: str
    seconds: float | None = None
    storage_bytes: float = 0.0
    memory_bytes: float = 0.0  # of one machine
    network_bytes: float = 0.0  # in all; of a search: a second
    cost: float | None = None  # of a service: a month
    note: str = ""


@dataclass(frozen=True)
class CapacityPlan:
    """The plan and everything that it was made from."""

    demand: Demand
    rates: Rates
    stages: tuple[Stage, ...]
    build_seconds: float
    limit: str  # the stage that sets the pace of the build
    next_limit: str  # a stage that would set it with more devices; empty: none up to MOST_DEVICES
    next_limit_at: int  # devices; 0: none
    replicas: int
    replicas_for: str  # memory, or work
    latency_seconds: float  # of one search, without waiting

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {"schema": 1, **asdict(self)}


def plan_capacity(demand: Demand, rates: Rates) -> CapacityPlan:
    """Return the plan of ``demand`` by ``rates``."""
    seconds = stage_seconds(demand, rates)
    limit = max(seconds, key=lambda name: seconds[name])
    next_limit, at = _next_limit(demand, rates, limit)
    build = rates.startup_seconds + max(seconds.values())
    replicas, why = replicas_for(demand, rates)
    latency = search_seconds(demand, rates, replicas)
    stages = (*_build_stages(demand, rates, seconds, build), *_search_stages(demand, rates, replicas))
    return CapacityPlan(demand, rates, stages, build, limit, next_limit, at, replicas, why, latency)


def stage_seconds(demand: Demand, rates: Rates) -> dict[str, float]:
    """Return the time of each stage of the build, by name, as if it never waited for another."""
    images, devices, cores = demand.images, demand.devices, demand.devices * demand.cores
    network = min(demand.network * demand.machines, demand.store)
    segments = demand.segments
    # The list of all segments is written more rarely the longer that takes, so only its last writing is sure.
    commits = segments * (rates.commit_seconds + rates.commit_segment_seconds)
    return {
        "list": ceil(images / LIST_PAGE) * demand.latency,
        "read": images * rates.image_bytes / network,
        "decode": images * rates.decode_seconds / cores,
        "compute": images * rates.compute_seconds / devices,
        "write": images * rates.write_seconds / devices,
        "upload": images * bytes_an_image(rates) / network + segments * demand.latency / devices,
        "commit": commits,
    }


def bytes_an_image(rates: Rates) -> float:
    """Return the bytes that the index holds of an image."""
    return rates.tensor_bytes + rates.vector_bytes + rates.beside_bytes


def _next_limit(demand: Demand, rates: Rates, limit: str) -> tuple[str, int]:
    """Return the stage that sets the pace once there are enough devices, and how many these are."""

    def limit_of(devices: int) -> str:
        seconds = stage_seconds(replace(demand, devices=devices), rates)
        return max(seconds, key=lambda name: seconds[name])

    if limit_of(MOST_DEVICES) == limit:
        return "", 0
    low, high = demand.devices, MOST_DEVICES
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if limit_of(middle) == limit else (low, middle)
    return limit_of(high), high


def _build_stages(demand: Demand, rates: Rates, seconds: dict[str, float], build: float) -> list[Stage]:
    images, price = demand.images, demand.device_hour
    stored = images * bytes_an_image(rates)
    cost = None if price is None else price * demand.devices * build / 3600
    month = None if demand.tb_month is None else demand.tb_month * stored / 1e12
    facts: dict[str, dict[str, Any]] = {
        "list": {"memory_bytes": 150 * images, "note": "names in the memory of the driver"},
        "read": {"network_bytes": images * rates.image_bytes},
        "decode": {"note": f"{demand.devices * demand.cores} cores"},
        "compute": {"cost": cost, "note": f"{demand.devices} x {rates.device}; the cost is that of the whole build"},
        "write": {},
        "upload": {"network_bytes": stored, "storage_bytes": stored, "cost": month, "note": "the cost is of a month"},
        "commit": {"memory_bytes": 4000 * demand.segments, "note": f"{demand.segments} segments, one by one"},
    }
    train = rates.train_seconds * images / 1e6 if images > IVF_FROM else 0.0
    stages = [Stage(name, seconds[name], **facts[name]) for name in seconds]
    return [*stages, Stage("train", train, memory_bytes=2 * rates.vector_bytes * images, note="after the build")]


def search_work(demand: Demand, rates: Rates) -> tuple[float, float]:
    """Return the seconds of work of one query: of its encoding, and of all replicas together."""
    share = demand.probed if demand.images > IVF_FROM else 1.0
    scan = rates.scan_seconds * share * demand.images / 1e6
    one = rates.score_seconds + rates.candidate_bytes / demand.disk
    return demand.modes_a_query * rates.encode_seconds, scan + demand.modes_a_query * demand.candidates * one


def search_seconds(demand: Demand, rates: Rates, replicas: int) -> float:
    """Return the time of one search over ``replicas`` that wait for nobody."""
    encode, work = search_work(demand, rates)
    return encode + work / replicas + rates.query_bytes / demand.network


def replicas_for(demand: Demand, rates: Rates) -> tuple[int, str]:
    """Return how many replicas the searches need, each with one device, and for what: memory or work.

    A replica holds the vectors of its segments in memory. It encodes no query: the router's device does.
    """
    _, work = search_work(demand, rates)
    busy = ceil(demand.queries_per_second * work / BUSY)
    memory = ceil(demand.images * (rates.vector_bytes + 150) / (0.7 * demand.memory))
    most = max(1, busy, memory)
    return most, "memory" if memory > busy else "work"


def _search_stages(demand: Demand, rates: Rates, replicas: int) -> list[Stage]:
    def monthly(devices: int) -> float | None:
        return None if demand.device_hour is None else demand.device_hour * devices * MONTH / 3600

    encode, work = search_work(demand, rates)
    routers = max(1, ceil(demand.queries_per_second * encode / BUSY))
    held = demand.images * (rates.vector_bytes + 150) / replicas
    sent = demand.queries_per_second * replicas * rates.query_bytes
    disk = demand.images * bytes_an_image(rates) / replicas
    return [
        Stage("encode query", encode, cost=monthly(routers), note=f"{routers} to encode"),
        Stage(
            "search",
            work / replicas,
            storage_bytes=disk,
            memory_bytes=held,
            network_bytes=sent,
            cost=monthly(replicas),
            note=f"{replicas} replicas; storage and memory are of one; network is a second; cost is of a month",
        ),
    ]
