"""Simulate a build by workers: the driver's own rules for jobs and commits, with times in place of work."""

import heapq
from collections import deque
from dataclasses import dataclass

from retrieval.indexing.workers.driver import FIRST_BATCHES, JOBS_A_WORKER, rows_of_next_job


@dataclass(frozen=True)
class BuildTimes:
    """Seconds and bytes of the parts of a build."""

    before: float  # until the workers are started: listing, comparing, loading the models to check them
    startup: float  # of a worker
    image: float  # of a worker, for an image, with a machine of its own
    work: float  # of processor cores, for an image; a machine that workers share gives no more than its cores
    commit: float  # of the driver, for a segment
    commit_segment: float  # more of it for every segment before
    after: float = 0.0  # opening the index, and ending the workers
    blocks: int = 0  # of random pairs, which workers score one after another
    block: float = 0.0  # of a worker, for such a block
    batch: int = 8
    cores: float = float("inf")  # that all workers share
    image_bytes: float = 0.0  # of a file
    stored_bytes: float = 0.0  # of an image in the index
    network: float = float("inf")  # bytes a second of one worker
    store: float = float("inf")  # bytes a second of the store, all workers together
    latency: float = 0.0  # of a request to the store
    requests: int = 0  # of the driver, one after another, to commit


@dataclass(frozen=True)
class BuildRun:
    """The simulated build."""

    seconds: float
    encoding: float  # from the first worker's start of work to the last commit
    pairs: float  # percentiles
    segments: int
    busy: float  # share of the encoding in which workers worked, their mean
    driver: float  # share of the encoding in which the driver committed
    pace: str  # the limit of one worker beside all others: worker, cores, network, or store

    @property
    def limit(self) -> str:
        """The part that holds the build up."""
        if self.driver > 0.9:
            return "commits, one after another"
        if self.busy < 0.85:
            return "the last segments: some workers have none"
        return {"worker": "the workers", "cores": "cores", "network": "a worker's network", "store": "the store"}[
            self.pace
        ]


def image_seconds(times: BuildTimes, workers: int) -> tuple[float, str]:
    """Return the seconds of an image for one of ``workers``, and the part that decides them."""
    moved = times.image_bytes + times.stored_bytes
    parts = {
        "worker": times.image,
        "cores": workers * times.work / times.cores,
        "network": moved / times.network,
        "store": workers * moved / times.store,
    }
    name = max(parts, key=lambda part: parts[part])
    return parts[name], name


def simulate_build(
    times: BuildTimes, images: int, workers: int, segment_rows: int = 1024, commit_seconds: float = 60.0
) -> BuildRun:
    """Run a build of ``images`` by ``workers``; the driver cuts and commits as :class:`Driver` does."""
    an_image, pace = image_seconds(times, workers)
    free = [times.before + times.startup] * workers  # when each worker can take a job
    heapq.heapify(free)
    begin, now, worked, committing = free[0], times.before, 0.0, 0.0
    running: deque[tuple[int, float, float]] = deque()  # rows, seconds, end
    rows, start, segments = FIRST_BATCHES * times.batch, 0, 0
    while start < images or running:
        while start < images and len(running) < JOBS_A_WORKER * workers:
            count = min(rows_of_next_job(rows, images - start, workers, times.batch), images - start)
            seconds = count * an_image + times.latency
            end = max(heapq.heappop(free), now) + seconds
            heapq.heappush(free, end)
            running.append((count, seconds, end))
            start, worked = start + count, worked + seconds
        now, cost = max(now, running[0][2]), segments * times.commit_segment + times.requests * times.latency
        while running and running[0][2] <= now:  # those that are finished are committed together
            count, seconds, _ = running.popleft()
            segments, cost = segments + 1, cost + times.commit
        now, committing = now + cost, committing + cost
        batches = min(segment_rows, count / max(seconds, 1e-3) * commit_seconds) // times.batch
        rows = max(times.batch, int(batches) * times.batch)
    encoding, pairs = now - begin, -(-times.blocks // workers) * times.block
    return BuildRun(
        now + pairs + times.after, encoding, pairs, segments, worked / (workers * encoding), committing / encoding, pace
    )
