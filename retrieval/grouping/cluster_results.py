"""Clusters of an index as they are given out, and the table of assignments."""

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from retrieval.errors import UsageError
from retrieval.files import check_writable, write_bytes
from retrieval.search.results import Note

SCHEMA = 1
NOISE = -1  # in place of a cluster's number, for images of no cluster
TABLES = (".csv", ".parquet")


@dataclass(frozen=True)
class ClusterMember:
    """One image of a cluster."""

    id: int
    path: str
    probability: float  # how firmly it belongs, 0 to 1
    score: float | None  # exact score with the medoid; None: not scored, or an image without tensors

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Cluster:
    """Images that lie close together, the medoid first, then the firmest and nearest."""

    number: int  # from 0, the largest cluster first
    cohesion: float  # mean closeness to the medoid: 0 is a random pair of the index, 1 equal images
    members: tuple[ClusterMember, ...]

    @property
    def medoid(self) -> ClusterMember:
        """The image nearest to the middle."""
        return self.members[0]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "number": self.number,
            "size": len(self.members),
            "cohesion": self.cohesion,
            "medoid": self.medoid.id,
            "members": [member.to_dict() for member in self.members],
        }


@dataclass(frozen=True)
class Clusters:
    """The clusters of one index in one mode, the largest first, and the images of none."""

    index: str
    images: int
    mode: str
    is_exact: bool  # whether exact scores weighed the edges
    clusters: tuple[Cluster, ...]
    noise: tuple[ClusterMember, ...]
    notes: tuple[Note, ...]
    timing_s: Mapping[str, float]  # seconds by stage

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "schema": SCHEMA,
            "index": self.index,
            "images": self.images,
            "mode": self.mode,
            "exact": self.is_exact,
            "clusters": [cluster.to_dict() for cluster in self.clusters],
            "noise": [{"id": member.id, "path": member.path} for member in self.noise],
            "notes": [note.message for note in self.notes],
            "timing_s": dict(self.timing_s),
        }

    def assignments(self) -> Iterator[dict[str, Any]]:
        """Yield a row for every image: id, path, cluster (:data:`NOISE` for none), probability, is_medoid."""
        for cluster in self.clusters:
            for member in cluster.members:
                yield _assignment(member, cluster.number, member is cluster.medoid)
        for member in self.noise:
            yield _assignment(member, NOISE, False)


def _assignment(member: ClusterMember, number: int, is_medoid: bool) -> dict[str, Any]:
    return {
        "id": member.id,
        "path": member.path,
        "cluster": number,
        "probability": member.probability,
        "is_medoid": is_medoid,
    }


def check_assignments(path: Path) -> None:
    """Raise the errors of :func:`write_assignments` before the work."""
    if path.suffix.lower() not in TABLES:
        raise UsageError(f"a table can't be written as {path.name!r}: its name must end in one of {', '.join(TABLES)}")
    check_writable(path)


def write_assignments(path: Path, found: Clusters) -> None:
    """Write the assignments as ``path``, .csv or .parquet, by id.

    Raises:
        UsageError: another suffix.
        DiffSimError: the file can't be written.
    """
    import pyarrow as pa  # a client of a server reads clusters without it
    import pyarrow.parquet as pq

    check_assignments(path)
    rows = sorted(found.assignments(), key=lambda row: row["id"])
    columns = [
        ("id", pa.int64()),
        ("path", pa.string()),
        ("cluster", pa.int64()),
        ("probability", pa.float64()),
        ("is_medoid", pa.bool_()),
    ]
    if path.suffix.lower() == ".parquet":
        buffer = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(rows, pa.schema(columns)), buffer)
        write_bytes(path, buffer.getvalue().to_pybytes())
        return
    text = io.StringIO()
    writer = csv.DictWriter(text, [name for name, _ in columns], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_bytes(path, text.getvalue().encode("utf-8", "surrogateescape"))
