"""Add up the progress of the jobs of one build or fill, and report it as one."""

from dataclasses import replace

from retrieval.encoding.timing import StageClock
from retrieval.indexing.reports import BuildEvent, Estimate, OnBuildProgress


class ProgressTally:
    """The counts of one build or fill, passed to its ``on_progress``."""

    def __init__(self, on_progress: OnBuildProgress, clock: StageClock, total: int = 0) -> None:
        """Report to ``on_progress``, with the speeds of ``clock``; ``total`` counts the files to deal with."""
        self.total = total
        self.clock = clock
        self._on_progress = on_progress
        self._done = self._rejected = 0

    def tell(self, stage: str, note: str = "", estimate: Estimate | None = None) -> None:
        """Report a stage before the first batch."""
        total = 0 if stage in ("model", "loaded") else self.total
        self._on_progress(BuildEvent(stage, 0, total, note, estimate=estimate))

    def advance(self, files: int, rejected: int = 0) -> None:
        """Report a batch of that many files."""
        self._done += files
        self._rejected += rejected
        event = BuildEvent("encode", self._done, self.total, rejected=self._rejected)
        self._on_progress(replace(event, speeds=self.clock.speeds()))

    def committed(self) -> None:
        """Report a commit."""
        self._on_progress(BuildEvent("commit", self._done, self.total, rejected=self._rejected))

    def of_job(self) -> OnBuildProgress:
        """Return a listener for one job, whose events count from 0."""
        done = rejected = 0

        def advance(event: BuildEvent) -> None:
            nonlocal done, rejected
            files, refused = event.done - done, event.rejected - rejected
            done, rejected = event.done, event.rejected
            self.advance(files, refused)

        return advance
