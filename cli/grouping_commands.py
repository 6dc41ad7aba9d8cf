"""``diffsim-index duplicates`` and ``clusters``: copies and similar images of an index, and its clusters."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from cli import options
from cli.option_groups import Speech, expand_groups
from cli.output import meant_index, note_sentences, short_path
from cli.terminal.printing import show, show_json
from cli.terminal.process import Speaker, stopping
from cli.terminal.progress import ProgressBar
from retrieval.errors import UsageError
from retrieval.settings import ClusterSettings, DuplicateSettings
from retrieval.text import counted, human_bytes

if TYPE_CHECKING:
    from retrieval.grouping.cluster_results import Clusters
    from retrieval.grouping.results import Duplicates, Group, Member
    from retrieval.progress import OnProgress

    Found = TypeVar("Found", Duplicates, Clusters)

_DUPLICATES, _CLUSTERS = DuplicateSettings(), ClusterSettings()

ModeOf = Annotated[
    str | None,
    typer.Option("--mode", "-m", metavar="NAME", help="Score similar images in this mode. (default: instance)"),
]
References = Annotated[
    list[Path] | None,
    typer.Option("--reference", metavar="FOLDER", help="Never offer images of this folder for deletion (repeatable)."),
]
Same = Annotated[
    float, typer.Option("--same", metavar="SHARE", help="Call images copies if this share of their structure agrees.")
]
Similar = Annotated[
    float,
    typer.Option("--similar", metavar="X", help="Call images similar from this closeness; 1 is an image with itself."),
]
Neighbours = Annotated[int, typer.Option("--neighbours", help="Compare each image with so many by each encoder.")]
ListFile = Annotated[
    Path | None, typer.Option("--list", metavar="FILE", help="Write the paths of copies that may be deleted to FILE.")
]
NullList = Annotated[bool, typer.Option("-0", "--null", help="End the paths of --list with a zero byte.")]
Sheets = Annotated[
    list[Path] | None,
    typer.Option("--sheet", metavar="FILE", help="Also draw the groups as FILE.png or FILE.html (repeatable)."),
]

ModeOfClusters = Annotated[
    str | None,
    typer.Option("--mode", "-m", metavar="NAME", help="Divide by this mode. (default: the index's first)"),
]
MinSize = Annotated[int, typer.Option("--min-size", help="Call fewer images than this noise.")]
Edges = Annotated[int, typer.Option("--neighbours", help="Join each image with so many by each encoder.")]
ByVectors = Annotated[bool, typer.Option("--no-rerank", help="Divide by vectors alone, without exact scores.")]
Assignments = Annotated[
    Path | None,
    typer.Option("--out", metavar="FILE", help="Write the cluster of every image as FILE.csv or FILE.parquet."),
]
ClusterSheets = Annotated[
    list[Path] | None,
    typer.Option("--sheet", metavar="FILE", help="Also draw the clusters as FILE.png or FILE.html (repeatable)."),
]


@expand_groups
def duplicates(
    place: options.Place = None,
    *,
    index: options.Index = None,
    mode: ModeOf = None,
    reference: References = None,
    same: Same = _DUPLICATES.same,
    similar: Similar = _DUPLICATES.similar,
    neighbours: Neighbours = _DUPLICATES.neighbours,
    workers: options.Workers = None,
    list_file: ListFile = None,
    null: NullList = False,
    sheet: Sheets = None,
    as_json: options.AsJson = False,
    speech: Speech,
) -> None:
    """List copies of the same picture and which one to keep, and images that are only similar. Deletes nothing."""
    from retrieval.drawing.sheet_file import check_sheet
    from retrieval.files import check_writable

    speaker, where = speech.speaker(), meant_index(index or place)
    settings = DuplicateSettings(mode, neighbours, same, similar, tuple(map(str, reference or ())), workers)
    if null and list_file is None:
        raise UsageError("-0 ends the paths of --list: give --list FILE as well")
    for file in sheet or []:
        check_sheet(file)
    if list_file is not None:
        check_writable(list_file)
    from retrieval.grouping.duplicates import find_duplicates
    from retrieval.grouping.sheets import draw_duplicates

    found = _grouped(speaker, lambda show: find_duplicates(where, settings, show))
    if as_json:
        show_json(found.to_dict())
    else:
        _print_groups(found.groups)
    for note in note_sentences(found):
        speaker.note(note)
    if list_file is not None:
        _write_list(list_file, found, b"\0" if null else b"\n")
        speaker.say(f"wrote {list_file}: {counted(len(found.offered), 'path')}")
    for file in sheet or []:
        _say_drawn(file, draw_duplicates(file, found), "group", speaker)
    speaker.say(_summary(found))


def _grouped(speaker: Speaker, group: "Callable[[OnProgress], Found]") -> "Found":
    """Return the groups that ``group`` finds, with a bar of its progress, and say how long each stage took."""
    bar = ProgressBar(speaker, "looking for near images")
    with stopping(lambda: "nothing was changed"), bar:
        found = group(bar.show)
    speaker.detail(", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in found.timing_s.items()))
    return found


def _print_groups(groups: "Sequence[Group]") -> None:
    for number, group in enumerate(groups):
        if number:
            show("")
        if group.level == "same":
            show(f"{len(group.members)} images are the same picture; the first is kept: {group.reason}")
        else:
            show(f"{len(group.members)} images are similar")
        for member in group.members:
            _print_member(member)


def _print_member(member: "Member") -> None:
    role = "reference" if member.is_reference else "keep" if member.is_kept else "copy"
    score = "" if member.score is None else f"{member.score:6.4f}"
    size, stored = f"{member.width} x {member.height}", human_bytes(member.file_bytes)
    about = ", ".join((*member.changes, *(() if member.is_there else ("its file is gone or changed",))))
    line = f"  {role:9s}  {score:6s}  {size:>11s}  {stored:>8s}  {short_path(member.path)}"
    show(line + (f"  ({about})" if about else ""))


def _write_list(file: Path, found: "Duplicates", end: bytes) -> None:
    from retrieval.files import write_bytes

    paths = [member.path for member in found.offered]
    if end == b"\n" and any("\n" in path for path in paths):
        raise UsageError(f"{file}: a path has a line break in it; end the paths with a zero byte, -0")
    write_bytes(file, b"".join(os.fsencode(path) + end for path in paths))


def _say_drawn(file: Path, left_out: int, what: str, speaker: Speaker) -> None:
    speaker.say(f"drew {file}" + (f", without the last {counted(left_out, what)}" if left_out else ""))


def _summary(found: "Duplicates") -> str:
    same = sum(group.level == "same" for group in found.groups)
    alike = len(found.groups) - same
    offered = human_bytes(sum(member.file_bytes for member in found.offered))
    return (
        f"{counted(found.images, 'image')}: {counted(same, 'group')} of copies, of which {len(found.offered)} "
        f"({offered}) may be deleted, and {counted(alike, 'group')} of similar images; nothing was deleted"
    )


@expand_groups
def clusters(
    place: options.Place = None,
    *,
    index: options.Index = None,
    mode: ModeOfClusters = None,
    min_size: MinSize = _CLUSTERS.min_size,
    neighbours: Edges = _CLUSTERS.neighbours,
    no_rerank: ByVectors = False,
    out: Assignments = None,
    sheet: ClusterSheets = None,
    as_json: options.AsJson = False,
    speech: Speech,
) -> None:
    """Divide the images of an index into clusters of one mode, by HDBSCAN. Images of no cluster are noise."""
    from retrieval.drawing.sheet_file import check_sheet
    from retrieval.grouping.cluster_results import check_assignments, write_assignments

    speaker, where = speech.speaker(), meant_index(index or place)
    settings = ClusterSettings(mode, neighbours, min_size, not no_rerank)
    for file in sheet or []:
        check_sheet(file)
    if out is not None:
        check_assignments(out)
    from retrieval.grouping.clusters import find_clusters
    from retrieval.grouping.sheets import draw_clusters

    found = _grouped(speaker, lambda show: find_clusters(where, settings, show))
    if as_json:
        show_json(found.to_dict())
    else:
        _print_clusters(found)
    for note in note_sentences(found):
        speaker.note(note)
    if out is not None:
        write_assignments(out, found)
        speaker.say(f"wrote {out}: {counted(found.images, 'image')}")
    for file in sheet or []:
        _say_drawn(file, draw_clusters(file, found), "cluster", speaker)


def _print_clusters(found: "Clusters") -> None:
    show("cluster  images  cohesion  medoid")
    for cluster in found.clusters:
        size = len(cluster.members)
        show(f"{cluster.number:7d}  {size:6d}  {cluster.cohesion:8.3f}  {short_path(cluster.medoid.path)}")
    show(f"  noise  {len(found.noise):6d}")
