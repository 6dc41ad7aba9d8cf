"""The pages of duplicates and of clusters as the server renders them, for browsers without JavaScript."""

import re
import time
from html import unescape
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from retrieval import find_clusters, find_duplicates
from retrieval.grouping.cluster_results import Cluster, ClusterMember, Clusters
from retrieval.serving.page.group_views import GROUPS, MEMBERS, NOISE, GroupPlace, clusters_view
from retrieval.serving.page.rendering import RENDERED
from tests.serving.test_page import HTML, cards

SOON = 20.0  # seconds


def shown(client: TestClient, address: str) -> str:
    """Return a page once it has its groups."""
    until = time.monotonic() + SOON
    while "http-equiv" in (page := client.get(address, headers=HTML)).text:
        assert time.monotonic() < until
    assert page.status_code == 200, page.text
    return page.text


def test_copies_are_shown_around_the_one_to_keep(grouped: TestClient, copies_index: Path) -> None:
    found = find_duplicates(copies_index)
    page = shown(grouped, "/duplicates")
    assert f"{len(found.offered)} (" in page
    assert [len(cards(section)) for section in page.split("<section")[1:]] == [
        len(group.members) for group in found.groups
    ]
    assert page.count('class="card kept"') == sum(group.level == "same" for group in found.groups)
    assert "mirrored" in page
    links = [unescape(link) for link in re.findall(r'class="open" href="([^"]*)"', page)]
    assert links[0] == f"/?index=copies&mode=instance&image=id:{found.groups[0].kept.id}"
    assert all(grouped.get(link, headers=HTML).status_code == 200 for link in links[:3])
    paths = grouped.get("/duplicates/paths?index=copies")
    assert paths.text.splitlines() == [member.path for member in found.offered]
    assert "attachment" in paths.headers["content-disposition"]


def test_clusters_are_shown_with_their_middles(grouped: TestClient, copies_index: Path) -> None:
    found = find_clusters(copies_index)
    page = shown(grouped, "/clusters")
    titles = re.findall(r"<h2[^>]*>(Cluster[^<]*)</h2>", page)
    assert titles == [f"Cluster {each.number}: {len(each.members)} pictures" for each in found.clusters]
    assert page.count(">middle</b>") == len(found.clusters)
    assert grouped.get("/clusters/progress", headers=HTML).json() == {"stage": "", "done": 0, "total": 0}


def many(clusters: int, members: int, noise: int) -> Clusters:
    def of(number: int) -> ClusterMember:
        return ClusterMember(number, f"/p/{number}.png", 1.0, None)

    each = tuple(Cluster(number, 0.5, tuple(map(of, range(members)))) for number in range(clusters))
    return Clusters("a", 1, "style", True, each, tuple(map(of, range(noise))), (), {})


def test_many_groups_are_shown_a_page_at_a_time() -> None:
    found = many(GROUPS + 3, RENDERED + 5, noise=RENDERED + 1)
    place = GroupPlace("/clusters", [("index", "a")])
    first = clusters_view(found, place)
    assert [len(section["cards"]) for section in first["sections"]] == [MEMBERS] * GROUPS
    assert first["more"] == f"/clusters?index=a&first={GROUPS}"
    second = clusters_view(found, GroupPlace("/clusters", [("index", "a")], first=GROUPS))
    assert [section["title"] for section in second["sections"]][-2:] == ["Cluster 22: 125 pictures", "Of no cluster"]
    assert second["more"] == ""
    assert first["sections"][2]["more"] == "/clusters?index=a&only=2"
    (alone,) = clusters_view(found, GroupPlace("/clusters", [("index", "a")], only="2"))["sections"]
    assert (len(alone["cards"]), alone["more"]) == (RENDERED, f"/clusters?index=a&first={RENDERED}&only=2")
    (rest,) = clusters_view(found, GroupPlace("/clusters", [("index", "a")], RENDERED, "2"))["sections"]
    assert (len(rest["cards"]), rest["more"]) == (5, "")
    (noise,) = clusters_view(found, GroupPlace("/clusters", [("index", "a")], RENDERED, NOISE))["sections"]
    assert len(noise["cards"]) == 1
    assert clusters_view(found, GroupPlace("/clusters", [], only="9" * 40))["sections"] == []


@pytest.mark.parametrize(
    ("address", "status", "words"),
    [
        ("/duplicates?mode=taste", 422, "unknown mode 'taste'"),
        ("/duplicates?same=2", 422, "same"),
        ("/duplicates?neighbours=99", 422, "neighbours = 30"),
        ("/clusters?min_size=x", 422, "min_size"),
        ("/clusters?index=other", 404, "known: copies"),
        ("/somewhere/progress", 404, "no page"),
    ],
)
def test_what_makes_no_sense_is_said_on_the_page(grouped: TestClient, address: str, status: int, words: str) -> None:
    answer = grouped.get(address, headers=HTML)
    assert answer.status_code == status
    assert words in unescape(answer.text)
    assert 'role="alert"' in answer.text


def test_fields_stay_as_they_were_typed(grouped: TestClient, copies_index: Path) -> None:
    folder = str(copies_index.parent / "pictures" / "west")
    page = shown(grouped, f"/duplicates?mode=style&same=0.8&similar=&neighbours=7&references={folder}&other=1")
    assert "<option selected>style</option>" in page
    for name, value in (("same", "0.8"), ("similar", "0.75"), ("neighbours", "7"), ("references", folder)):
        assert re.search(f'name="{name}"[^>]*value="{value}"', page), name
    assert '<b class="badge">reference</b>' in page
