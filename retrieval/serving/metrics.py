"""Counters and times of a server, for Prometheus."""

import time
from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from retrieval.search.results import Results

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)  # seconds
TOTAL = "total"


class ServerMetrics:
    """The metrics of one server."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter(
            "diffsim_requests", "Requests by route and status.", ["method", "route", "status"], registry=registry
        )
        self.latency = Histogram(
            "diffsim_request_seconds",
            "Time from a request to its answer.",
            ["route"],
            buckets=BUCKETS,
            registry=registry,
        )
        self.stage = Histogram(
            "diffsim_stage_seconds",
            "Time of a question in each stage; questions that are answered together share it.",
            ["stage"],
            buckets=BUCKETS,
            registry=registry,
        )
        self.questions = Counter("diffsim_questions", "Questions by mode.", ["mode"], registry=registry)
        self.batch = Histogram(
            "diffsim_batch_questions", "Questions answered together.", buckets=(1, 2, 4, 8, 16), registry=registry
        )
        self.queue = Gauge("diffsim_queue", "Questions that are read, wait or are computed.", registry=registry)
        self.refused = Counter("diffsim_refused", "Requests that were told to come back later.", registry=registry)
        self.tensors = Counter(
            "diffsim_candidate_tensors",
            "Candidates without stored tensors, by where these came from.",
            ["origin"],
            registry=registry,
        )
        self.cache = Counter(
            "diffsim_cache", "Look-ups in a cache of the server.", ["cache", "found"], registry=registry
        )
        self.cache_bytes = Gauge("diffsim_cache_bytes", "Bytes in a cache of the server.", ["cache"], registry=registry)
        self.generation = Gauge("diffsim_generation", "The generation that is served.", ["index"], registry=registry)
        self.items = Gauge("diffsim_items", "Images in an index.", ["index"], registry=registry)
        self.replicas = Gauge("diffsim_replicas", "Replicas of an index that answer.", ["index"], registry=registry)
        self.started = Gauge("diffsim_started_seconds", "When the server began, in Unix time.", registry=registry)
        self.started.set(time.time())

    def searched(self, waited: Sequence[float], found: Sequence[Results]) -> None:
        """Count questions that were answered together; ``waited`` are seconds in the queue."""
        self.batch.observe(len(found))
        for seconds, results in zip(waited, found, strict=True):
            self.questions.labels(results.mode).inc()
            self.stage.labels("queue").observe(max(0.0, seconds))
            for stage, ms in results.timing_ms.items():
                if stage != TOTAL:
                    self.stage.labels(stage).observe(ms / 1000)
            self.tensors.labels("computed").inc(results.computed)
            self.tensors.labels("kept").inc(results.cached)

    def page(self) -> bytes:
        """Return all metrics in Prometheus' text form."""
        return generate_latest(self.registry)
