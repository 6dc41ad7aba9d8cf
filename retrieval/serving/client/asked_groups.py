"""Duplicates and clusters from a server: ask until the work is done, and read the answer."""

import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from retrieval.grouping.cluster_results import Cluster, ClusterMember, Clusters
from retrieval.grouping.results import Duplicates, Group, Member
from retrieval.progress import Cancellation, OnProgress, Progress
from retrieval.search.results import Note
from retrieval.serving.client.transport import Transport

PAUSE_SECONDS = 0.2  # between two looks at work that goes on


def groups_json(
    transport: Transport, path: str, asked: Mapping[str, Any], on_progress: OnProgress, cancel: Cancellation | None
) -> dict[str, Any]:
    """Return the JSON at ``path`` once the server's work is done; fields of ``asked`` that are None are left out.

    Raises:
        CancelledError: ``cancel`` was requested; the server ends work that nobody asks for any more.
        ServerError, DiffSimError: see :meth:`Transport.ask`.
    """
    given = {name: str(value).lower() if isinstance(value, bool) else value for name, value in asked.items()}
    fields = {name: value for name, value in given.items() if value is not None}
    while True:
        if cancel is not None:
            cancel.check()
        answer: dict[str, Any] = transport.ask(f"{path}?{urlencode(fields, doseq=True, errors='surrogateescape')}")
        if "stage" not in answer:
            return answer
        on_progress(Progress(answer["stage"], answer["done"], answer["total"]))
        time.sleep(PAUSE_SECONDS)


def read_duplicates(answer: Mapping[str, Any]) -> Duplicates:
    """Return the duplicates in an answer."""
    groups = tuple(
        Group(group["level"], tuple(_member(each) for each in group["members"]), group["reason"])
        for group in answer["groups"]
    )
    return Duplicates(answer["index"], answer["images"], answer["mode"], groups, _notes(answer), answer["timing_s"])


def read_clusters(answer: Mapping[str, Any]) -> Clusters:
    """Return the clusters in an answer."""
    clusters = tuple(
        Cluster(each["number"], each["cohesion"], tuple(ClusterMember(**member) for member in each["members"]))
        for each in answer["clusters"]
    )
    noise = tuple(ClusterMember(each["id"], each["path"], 0.0, None) for each in answer["noise"])
    about = answer["index"], answer["images"], answer["mode"], answer["exact"]
    return Clusters(*about, clusters, noise, _notes(answer), answer["timing_s"])


def _member(values: Mapping[str, Any]) -> Member:
    return Member(**{**values, "changes": tuple(values["changes"])})


def _notes(answer: Mapping[str, Any]) -> tuple[Note, ...]:
    return tuple(Note(**note) for note in answer["note_details"])
