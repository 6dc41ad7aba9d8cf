"""A client: the methods of an engine, answered by a server."""

import hashlib
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any, Unpack
from urllib.parse import quote, urlencode

import numpy as np
from PIL import Image

from retrieval.errors import DiffSimError, ImageError, UsageError
from retrieval.files import is_object
from retrieval.grouping.cluster_results import Clusters
from retrieval.grouping.results import Duplicates
from retrieval.images.file_bytes import read_bytes
from retrieval.models.token_grid import TokenGrid
from retrieval.progress import Cancellation, OnProgress, ignore_progress
from retrieval.search.explaining.explanation import BoardExplanation, Correspondence, ExplainedImage, ImageExplanation
from retrieval.search.filters.filter import Filter
from retrieval.search.queries.query import Query, QueryInput, as_query
from retrieval.search.results import ModeScore, Note, Result, Results
from retrieval.serving.client.asked_groups import groups_json, read_clusters, read_duplicates
from retrieval.serving.client.asked_json import filter_json, image_json, local_path, question_json
from retrieval.serving.client.transport import Transport, as_error
from retrieval.settings import (
    CORRESPONDENCES,
    ClusterSettings,
    DuplicateSettings,
    SearchChoices,
    SearchSettings,
)

PAGE = 1_000  # items that are fetched at a time
SECONDS = 600.0  # that one answer may take
SIDE = 512  # px of an explained item's picture


class Client:
    """Search one index of a server, as :class:`retrieval.Engine` searches one on this machine.

    Files of queries are read here and sent. Paths in results are those of the server's machine.
    """

    def __init__(self, url: str, index: str | None = None, token: str | None = None, seconds: float = SECONDS) -> None:
        """Ask the server which indexes it has.

        Args:
            url: like ``http://127.0.0.1:8000``.
            index: the name of an index there; None: the server's first.
            token: the server's token, if it needs one.
            seconds: how long one answer may take.

        Raises:
            UsageError: no address of a server, or an index that the server does not have.
            ServerError: the server can't be reached.
        """
        self._transport = Transport(url.rstrip("/"), token, seconds)
        served = {each["name"]: each for each in self._transport.ask("/v1/indexes")["indexes"]}
        name = next(iter(served)) if index is None else index
        if name not in served:
            raise UsageError(f"{url} serves no index '{name}'; known: {', '.join(served)}")
        self._name, self._about = name, served[name]
        self._path = f"/v1/indexes/{quote(name, safe='')}"
        limits = self._transport.ask("/v1/limits")
        self._queries, self._page = min(16, limits["queries"]), min(PAGE, limits["page"])
        self._items: dict[str, int] = {}  # ids of the server's items that locate found, by path

    def __len__(self) -> int:
        return int(self._about["items"])

    @property
    def modes(self) -> tuple[str, ...]:
        """The modes that the index was built for, its default first."""
        return tuple(self._about["modes"])

    def search(
        self,
        query: QueryInput,
        mode: str | None = None,
        on_progress: OnProgress = ignore_progress,
        cancel: Cancellation | None = None,
        where: Filter | None = None,
        **choices: Unpack[SearchChoices],
    ) -> Results:
        """Return the nearest neighbours of ``query``; see :meth:`retrieval.Engine.search`."""
        return next(self.search_many([query], mode, on_progress, cancel=cancel, where=where, **choices))[1]

    def search_many(
        self,
        queries: Iterable[QueryInput],
        mode: str | None = None,
        on_progress: OnProgress = ignore_progress,
        on_unusable: Any = None,
        cancel: Cancellation | None = None,
        where: Filter | None = None,
        **choices: Unpack[SearchChoices],
    ) -> Iterator[tuple[Any, Results]]:
        """Yield every query with its nearest neighbours; see :meth:`retrieval.Engine.search_many`.

        ``on_progress`` hears nothing: the server computes. ``cancel`` counts between groups of queries.
        """
        asked = {**asdict(SearchSettings(**choices)), **filter_json(where), "index": self._name, "mode": mode}

        def searches() -> Iterator[tuple[Any, Results]]:
            remaining = iter(queries)
            while group := list(islice(remaining, self._queries)):
                if cancel is not None:
                    cancel.check()
                yield from self._group(group, asked, on_unusable)

        return searches()

    def _group(
        self, group: Sequence[QueryInput], asked: dict[str, Any], on_unusable: Any
    ) -> Iterator[tuple[Any, Results]]:
        given: list[Results | DiffSimError | None] = []
        sent: dict[int, dict[str, Any]] = {}
        for place, query in enumerate(group):
            given.append(None)
            try:
                sent[place] = question_json(as_query(query), self._known(query, asked["exclude_self"]))
            except ImageError as error:
                given[place] = error
        body = {**asked, "queries": list(sent.values())}
        answers = self._transport.ask("/v1/search/many", body)["answers"] if sent else []
        for place, answer in zip(sent, answers, strict=True):
            is_error = "error" in answer
            query = as_query(group[place])
            given[place] = as_error(answer["error"], answer["kind"]) if is_error else self._results(query, answer)
        for query, found in zip(group, given, strict=True):
            if isinstance(found, Results):
                yield query, found
            elif on_unusable is not None and isinstance(found, ImageError):
                on_unusable(query, found)
            elif found is not None:
                raise found

    def _known(self, query: QueryInput, exclude_self: bool) -> dict[str, int]:
        """Return the ids of items by path; with ``exclude_self`` also of this machine's files that are items there.

        Such a file is an item if the server has its path with the same bytes; the item then asks in its place.
        """
        if not exclude_self:
            return self._items
        paths = [str(image) for image in as_query(query).images if isinstance(image, str | Path)]
        return {**self._items, **{path: found for path in paths if (found := self._same_file(path)) is not None}}

    def _same_file(self, path: str) -> int | None:
        try:
            data = read_bytes(Path(path))[0]
            found = self._find(path if is_object(path) else os.path.abspath(path))
        except (ImageError, UsageError):
            return None
        return int(found["id"]) if found["sha256"] == hashlib.sha256(data).hexdigest() else None

    def _find(self, text: str) -> dict[str, Any]:
        """Return the one item that the server finds by ``text``, or raise its UsageError."""
        asked = urlencode({"text": text}, errors="surrogateescape")  # also a name that is not valid UTF-8
        found: dict[str, Any] = self._transport.ask(f"{self._path}/find?{asked}")
        return found

    def _results(self, query: Query, answer: dict[str, Any]) -> Results:
        """Return the results in an answer, with the paths of pictures that were sent from here."""
        known = {name: value for name, value in answer.items() if name not in ("schema", "note_details")}
        known["notes"] = tuple(Note(**note) for note in answer["note_details"])
        known["results"] = tuple(map(_result, answer["results"]))
        about = known["query"]
        places = about.get("images", []) + about.get("minus", []) or [about]
        for place, image in zip(places, (*query.images, *query.minus), strict=False):
            place["path"] = place["path"] or local_path(image, self._items)
            if place["path"] is None and not isinstance(image, bytes):
                place.pop("sha256", None)  # of the bytes that were sent, which are no file's
        return Results(**known)

    def score(self, first: QueryInput, second: QueryInput, mode: str | None = None) -> float:
        """Return the exact score of one pair; see :meth:`retrieval.Engine.score`."""
        pair = {"first": self._single(first), "second": self._single(second)}
        answer = self._transport.ask("/v1/score", {**pair, "index": self._name, "mode": mode})
        return float(answer["score"])

    def _single(self, given: QueryInput) -> dict[str, Any]:
        query = as_query(given)
        if not query.is_plain or query.regions is not None:
            raise UsageError("a pair has one whole image on each side: ask for each image of a board by itself")
        return image_json(query.images[0], self._items)

    def explain(self, query: QueryInput, candidate: Result | int, mode: str | None = None) -> ImageExplanation:
        """Explain the score of one item; see :meth:`explain_all`."""
        return next(self.explain_all(query, [candidate], mode))

    def explain_all(
        self,
        query: QueryInput,
        candidates: Iterable[Result | int],
        mode: str | None = None,
        correspondences: int = CORRESPONDENCES,
    ) -> Iterator[ImageExplanation]:
        """Yield an explanation of every candidate's score; see :meth:`retrieval.Engine.explain_all`.

        Candidates are items of the index. ``attention`` is None: the server sends no more than maps and pairs of cells.
        """
        image = as_query(query).images[0]
        asked = {"query": self._single(query), "correspondences": correspondences, "index": self._name, "mode": mode}
        for candidate in candidates:
            number = candidate.id if isinstance(candidate, Result) else candidate
            (found,) = self._transport.ask("/v1/explain", {**asked, "candidates": [number]})["explanations"]
            found["query"]["path"] = found["query"]["path"] or local_path(image, self._items)
            pairs = [
                Correspondence(tuple(p["query"]), tuple(p["candidate"]), p["weight"]) for p in found["correspondences"]
            ]
            query_side, candidate_side = (
                self._explained(found["query"], image),
                self._explained(found["candidate"], number),
            )
            yield ImageExplanation(found["mode"], found["score"], query_side, candidate_side, pairs, None)

    def explain_board(self, *_: Any) -> Iterator[BoardExplanation]:
        """Raise UsageError: a server explains the scores of one image alone."""
        raise UsageError("a server explains the score of one image: search the index where it lies to explain a board")

    def _explained(self, found: dict[str, Any], picture: Any) -> ExplainedImage:
        parts = np.array(found["map"], np.float32)
        if isinstance(picture, int):
            data = self._transport.fetch(f"{self._path}/items/{picture}/thumbnail?side={SIDE}")
            picture = Image.open(io.BytesIO(data))
        grid = TokenGrid(parts.shape[0], parts.shape[1], region=tuple(found["region"]))
        return ExplainedImage(found["path"], picture, grid, parts, found["other"])

    def duplicates(
        self,
        settings: DuplicateSettings | None = None,
        on_progress: OnProgress = ignore_progress,
        cancel: Cancellation | None = None,
    ) -> Duplicates:
        """Return groups of copies, and of images that are alike; see :func:`retrieval.find_duplicates`.

        Reference folders are those of the server's machine, and its own threads decode.
        """
        asked = asdict(settings or DuplicateSettings())
        del asked["workers"]
        return read_duplicates(groups_json(self._transport, f"{self._path}/duplicates", asked, on_progress, cancel))

    def clusters(
        self,
        settings: ClusterSettings | None = None,
        on_progress: OnProgress = ignore_progress,
        cancel: Cancellation | None = None,
    ) -> Clusters:
        """Return the clusters of one mode; see :func:`retrieval.find_clusters`."""
        asked = asdict(settings or ClusterSettings())
        return read_clusters(groups_json(self._transport, f"{self._path}/clusters", asked, on_progress, cancel))

    def locate(self, text: str) -> Path | str:
        """Return the file of this machine that ``text`` names, or the path of the one item that it means.

        Raises:
            UsageError: no item, or several; the message lists some.
        """
        if Path(text).exists():
            return text
        found = self._find(text)
        self._items[found["path"]] = found["id"]
        return Path(found["path"])

    def items(self) -> Iterator[tuple[int, str]]:
        """Yield id and path of every indexed image, in the order of the ids."""
        first = 0
        while True:
            path = f"{self._path}/items?first={first}&count={self._page}"
            items = self._transport.ask(path)["items"]
            self._items.update((each["path"], each["id"]) for each in items)
            yield from ((each["id"], each["path"]) for each in items)
            if len(items) < self._page:
                return
            first += self._page

    def paths(self) -> list[str]:
        """Return the indexed images' paths, in the order of their ids."""
        return [path for _, path in self.items()]

    def info(self) -> dict[str, Any]:
        """Return a description of the index, as JSON values."""
        found: dict[str, Any] = self._transport.ask(self._path)
        return found


def _result(values: dict[str, Any]) -> Result:
    box, others = values["found_box"], tuple(ModeScore(**each) for each in values["other_modes"])
    return Result(**{**values, "found_box": None if box is None else tuple(box), "other_modes": others})
