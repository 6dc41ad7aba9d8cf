"""Simulate searches over replicas: queries come at random, each replica answers one after another."""

from dataclasses import dataclass

import numpy as np

QUERIES = 3000
SEED = 0


@dataclass(frozen=True)
class SearchTimes:
    """Seconds and bytes of the parts of a search."""

    encode: float  # of a router's device, for a query
    scan: float  # of one replica that holds every image
    candidate: float  # of a replica, to read and score one
    candidates: int
    query_bytes: float  # of an encoded query, sent to every replica
    network: float  # bytes a second that the router sends
    hop: float = 0.001  # from router to replica and back
    fixed: float = 0.002  # of a replica, for any question
    routers: int = 1


@dataclass(frozen=True)
class SearchRun:
    """The simulated searches of one number of replicas."""

    most_per_second: float  # searches that replicas, routers and network can do
    limit: str  # the part that sets it
    p50: float  # seconds at half of that rate
    p99: float


def simulate_search(times: SearchTimes, replicas: int, queries: int = QUERIES) -> SearchRun:
    """Send ``queries`` at random moments, at half of the highest rate, and return how long they took."""
    generator = np.random.default_rng(SEED)
    shares = generator.multinomial(times.candidates, [1 / replicas] * replicas, queries)
    work = times.fixed + times.scan / replicas + shares * times.candidate  # [queries, replicas]
    sending = replicas * times.query_bytes / times.network
    parts = {
        "replicas": float(work.mean()),
        "the router's device, which encodes": times.encode / times.routers,
        "the router's network": sending / times.routers,
    }
    limit = max(parts, key=lambda part: parts[part])
    rate = 1 / parts[limit]
    arrivals = np.cumsum(generator.exponential(2 / rate, queries))
    encoded, routers = np.empty(queries), np.zeros(times.routers)
    for number, arrival in enumerate(arrivals):
        first = int(routers.argmin())
        routers[first] = encoded[number] = max(routers[first], arrival) + times.encode + sending
    free, ended = np.zeros(replicas), np.empty(queries)
    for number in np.argsort(encoded):
        free = np.maximum(free, encoded[number] + times.hop / 2) + work[number]
        ended[number] = free.max() + times.hop / 2
    waited = ended - arrivals
    return SearchRun(rate, limit, float(np.median(waited)), float(np.percentile(waited, 99)))
