"""Export the catalogue and the vectors of an index."""

from pathlib import Path

from index_store.files import write_array, writing
from index_store.reader import IndexReader
from index_store.remote.pull import existing_root
from retrieval.errors import UsageError
from retrieval.indexing.upkeep.change import Change


def export(index: str | Path, folder: Path) -> Change:
    """Write ``items.parquet`` and, for every encoder, float32 ``ENCODER.npy`` ``[items, dim]``; rows correspond.

    Raises:
        UsageError: ``folder`` is not empty.
    """
    reader = IndexReader(existing_root(index))
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} is not empty; name another folder")
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        folder = folder.resolve()  # links on the way are the user's own
        reader.export_items(folder / "items.parquet")
        for encoder in reader.generation.encoders:
            write_array(folder / f"{encoder}.npy", reader.vectors(encoder))
    return Change(str(index), len(reader))
