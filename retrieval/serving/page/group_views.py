"""What the pages of duplicates and of clusters show: sections of cards, some at a time."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

from retrieval.grouping.cluster_results import Cluster, ClusterMember, Clusters
from retrieval.grouping.results import Duplicates, Group, Member
from retrieval.serving.page.rendering import RENDERED, bare_card
from retrieval.text import counted, human_bytes

GROUPS = 20  # of one page
MEMBERS = 12  # of a group among others
NOISE = "noise"  # in place of the number of a group: the images of no cluster


@dataclass(frozen=True)
class GroupPlace:
    """An address of one of these pages: what is asked, and which part of the answer is shown."""

    path: str
    fields: Sequence[tuple[str, str]]  # of the question
    first: int = 0  # position of the first group, or of the first member of ``only``
    only: str = ""  # the number of one group, or NOISE; empty: several groups

    def url(self, **changes: Any) -> str:
        """Return this address, or another part of the same answer."""
        place = replace(self, **changes)
        parts = [("first", str(place.first))] if place.first else []
        parts += [("only", place.only)] if place.only else []
        return f"{place.path}?{urlencode([*place.fields, *parts])}"


def duplicates_view(found: Duplicates, place: GroupPlace) -> dict[str, Any]:
    """Return the part of the duplicates at ``place``, and a summary of all."""
    same = sum(group.level == "same" for group in found.groups)
    size = human_bytes(sum(member.file_bytes for member in found.offered))
    summary = (
        f"{counted(found.images, 'picture')}: {counted(same, 'group')} of copies, of which {len(found.offered)} "
        f"({size}) may be deleted, and {counted(len(found.groups) - same, 'group')} of similar pictures. "
        "This page deletes nothing."
    )
    chosen = _chosen(len(found.groups), place)
    sections = [_group(found.groups[number], number, place) for number in chosen]
    more = "" if place.only else _more(len(found.groups), place, GROUPS)
    offered = len(found.offered)
    return {
        "summary": summary,
        "sections": sections,
        "more": more,
        "offered": offered,
        "empty": "No copies were found.",
    }


def clusters_view(found: Clusters, place: GroupPlace) -> dict[str, Any]:
    """Return the part of the clusters at ``place``, and a summary of all."""
    summary = (
        f"{counted(found.images, 'picture')}: {counted(len(found.clusters), 'cluster')} by {found.mode}, "
        f"and {counted(len(found.noise), 'picture')} of none."
    )
    sections = [_cluster(found.clusters[number], place) for number in _chosen(len(found.clusters), place)]
    more = "" if place.only else _more(len(found.clusters), place, GROUPS)
    if found.noise and (place.only == NOISE or not (place.only or more)):
        about = "pictures that lie near too few others"
        cards = [_cluster_card(member, "", "") for member in found.noise]
        sections.append(_section("Of no cluster", about, cards, NOISE, place))
    empty = "No clusters were found: try fewer pictures a cluster, or another mode."
    return {"summary": summary, "sections": sections, "more": more, "offered": 0, "empty": empty}


def _chosen(count: int, place: GroupPlace) -> Sequence[int]:
    if not place.only:
        return range(place.first, min(place.first + GROUPS, count))
    number = int(place.only[:18]) if place.only.isdecimal() else count
    return [number] if number < count else []


def _more(count: int, place: GroupPlace, shown: int) -> str:
    following = place.first + shown
    return place.url(first=following) if following < count else ""


def _group(group: Group, number: int, place: GroupPlace) -> dict[str, Any]:
    count = len(group.members)
    title = f"{counted(count, 'picture')}: " + ("the same picture" if group.level == "same" else "similar")
    about = f"the first is kept: {group.reason}" if group.reason else "none is a copy of another"
    return _section(title, about, [_member_card(member, group.level) for member in group.members], str(number), place)


def _member_card(member: Member, level: str) -> dict[str, Any]:
    role = "reference" if member.is_reference else "keep" if member.is_kept else "copy"
    facts = [f"{member.width} × {member.height}", human_bytes(member.file_bytes), *member.changes]
    facts += [] if member.score is None else [f"score {member.score:.4f}"]
    facts += [] if member.is_there else ["its file is gone or changed"]
    return bare_card(member.id, member.path, member.sha256) | {
        "badge": role if level == "same" or member.is_reference else "",
        "facts": ", ".join(facts),
    }


def _cluster(cluster: Cluster, place: GroupPlace) -> dict[str, Any]:
    title = f"Cluster {cluster.number}: {counted(len(cluster.members), 'picture')}"
    medoid, *others = cluster.members
    cards = [_cluster_card(medoid, "middle", "nearest to the middle")]
    cards += [_cluster_card(member, "", _nearness(member)) for member in others]
    return _section(title, f"cohesion {cluster.cohesion:.2f}", cards, str(cluster.number), place)


def _nearness(member: ClusterMember) -> str:
    return f"belongs by {member.probability:.0%}" if member.score is None else f"score {member.score:.4f}"


def _cluster_card(member: ClusterMember, badge: str, facts: str) -> dict[str, Any]:
    return bare_card(member.id, member.path, "") | {"badge": badge, "facts": facts}


def _section(title: str, about: str, cards: list[dict[str, Any]], number: str, place: GroupPlace) -> dict[str, Any]:
    """Return one group: its first members among others, or many from a position on where it stands alone."""
    first, most = (place.first, RENDERED) if place.only else (0, MEMBERS)
    shown, following = cards[first : first + most], first + most
    more = place.url(only=number, first=following if place.only else 0) if following < len(cards) else ""
    words = f"more of {len(cards)}" if place.only else f"all {len(cards)}"
    return {"title": title, "about": about, "cards": shown, "more": more, "more_words": words}
