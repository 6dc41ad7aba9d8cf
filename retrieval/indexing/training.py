"""Train the IVF index of every encoder that has grown large enough."""

from pathlib import Path

from index_store.reader import IndexReader
from index_store.vectors import training
from retrieval.indexing.reports import BuildEvent, OnBuildProgress
from retrieval.progress import ignore_progress


def open_trained(root: Path, on_progress: OnBuildProgress = ignore_progress) -> IndexReader:
    """Train the IVF indexes that are missing or outdated, and return the index, opened.

    The caller holds the writer's lock. ``on_progress`` is called before each training, with the encoder as the note.
    """
    reader = IndexReader(root)

    def tell(encoder: str) -> None:
        on_progress(BuildEvent("train", 0, len(reader), encoder))

    training.train_where_due(reader.vector_reader, tell)
    return reader
