"""Draw groups and clusters as contact sheets."""

from pathlib import Path

from retrieval.drawing.cells import SheetCell, SheetRow
from retrieval.drawing.sheet_file import write_sheet
from retrieval.grouping.cluster_results import Cluster, Clusters
from retrieval.grouping.results import Duplicates, Group, Member
from retrieval.text import counted

MOST_GROUPS = 100  # on one sheet, which is drawn in memory
MOST_MEMBERS = 30  # of one group


def draw_duplicates(path: Path, found: Duplicates, heading: str = "") -> int:
    """Draw groups as ``path`` (.png, .jpg, .webp or .html), a row a group, the kept image on the left.

    Returns:
        How many groups are left out, the last ones, where there are too many for one sheet.

    Raises:
        UsageError: no sheet can have this suffix.
        DiffSimError: the file can't be written.
    """
    write_sheet(path, [_row(group) for group in found.groups[:MOST_GROUPS]], heading)
    return max(0, len(found.groups) - MOST_GROUPS)


def _row(group: Group) -> SheetRow:
    others = group.members[1 : 1 + MOST_MEMBERS]
    hidden = len(group.members) - 1 - len(others)
    said = "copies of one picture" if group.level == "same" else "similar pictures"
    parts = [f"{counted(len(group.members), 'image')}: {said}"]
    parts += [f"kept because {group.reason}"] if group.reason else []
    parts += [f"{hidden} of them are not shown"] if hidden else []
    label = "kept" if group.level == "same" else "first"
    return SheetRow("; ".join(parts), _cell(group.kept), [_cell(member) for member in others], label)


def _cell(member: Member) -> SheetCell:
    caption = ", ".join(member.changes) or ("" if member.score is None else f"{member.score:.3f}")
    reference = ", reference" if member.is_reference else ""
    note = f"{member.width} x {member.height}{reference}, {_name(member.path)}"
    return SheetCell(Path(member.path), caption, note)


def draw_clusters(path: Path, found: Clusters, heading: str = "") -> int:
    """Draw clusters as ``path`` (.png, .jpg, .webp or .html), a row a cluster, the medoid on the left.

    Returns:
        How many clusters are left out, the smallest, where there are too many for one sheet.

    Raises:
        UsageError: no sheet can have this suffix.
        DiffSimError: the file can't be written.
    """
    write_sheet(path, [_cluster_row(cluster) for cluster in found.clusters[:MOST_GROUPS]], heading)
    return max(0, len(found.clusters) - MOST_GROUPS)


def _cluster_row(cluster: Cluster) -> SheetRow:
    others = cluster.members[1 : 1 + MOST_MEMBERS]
    hidden = len(cluster.members) - 1 - len(others)
    parts = (f"cluster {cluster.number}", counted(len(cluster.members), "image"), f"cohesion {cluster.cohesion:.2f}")
    title = ", ".join((*parts, *([f"{hidden} of them are not shown"] if hidden else [])))
    cells = [
        SheetCell(Path(member.path), "" if member.score is None else f"{member.score:.3f}", _name(member.path))
        for member in (cluster.medoid, *others)
    ]
    return SheetRow(title, cells[0], cells[1:], "medoid")


def _name(path: str) -> str:
    return "/".join(Path(path).parts[-2:])
