"""The state of a server: its indexes, the computing threads, caches and metrics."""

import hashlib
import io
import logging
import re
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from PIL import Image

from retrieval.devices.threads import side_by_side
from retrieval.encoding.loaded_models import LoadModels
from retrieval.errors import DiffSimError, ImageError, UsageError
from retrieval.grouping.cluster_results import Clusters
from retrieval.grouping.clusters import find_clusters
from retrieval.grouping.duplicates import find_duplicates
from retrieval.grouping.results import Duplicates
from retrieval.progress import Cancellation, OnProgress
from retrieval.search.browsing.catalogue import Item, is_remote, shrunk, thumbnail
from retrieval.search.engine import Engine
from retrieval.search.queries.picture import UNNAMED
from retrieval.serving.asking.fetching import Fetcher
from retrieval.serving.asking.questions import QuestionReader, check_limit, held_upload
from retrieval.serving.errors import GoneError, NotFoundError
from retrieval.serving.indexes.byte_cache import ByteCache
from retrieval.serving.indexes.served_index import ServedIndex
from retrieval.serving.metrics import ServerMetrics
from retrieval.serving.queueing.computing_threads import ComputingThreads
from retrieval.serving.queueing.jobs import CallJob
from retrieval.serving.queueing.long_work import LongWork, Piece
from retrieval.serving.safety.access import Access
from retrieval.settings import ClusterSettings, DuplicateSettings, ServerSettings

logger = logging.getLogger(__name__)

READERS = 2  # threads that decode the images of requests
ASKED_FIRST = 64  # px of the side of a plain picture
REMOTE_REFRESH_SECONDS = 15.0  # between looks into an object store
_NAME = re.compile(r"[^/\\\x00-\x1f]{1,255}")


class Server:
    """Serves indexes by name. :meth:`start` begins to work, :meth:`stop` ends once everything accepted is answered."""

    def __init__(
        self, indexes: Mapping[str, str | Path], settings: ServerSettings, load: LoadModels | None = None
    ) -> None:
        """Open the indexes; the first one is the default.

        Raises:
            UsageError: no index, or a name that can't stand in a URL.
            IndexNotFoundError, IndexCorruptError, IndexIncompatibleError: see :meth:`retrieval.Engine.open`.
        """
        if not indexes:
            raise UsageError("a server needs one index at least")
        wrong = [name for name in indexes if not _NAME.fullmatch(name)]
        if wrong:
            raise UsageError(f"an index can't be served by the name {wrong[0]!r}: it must do as a part of a URL")
        self.settings, limits = settings, settings.limits
        engine = replace(settings.engine, max_pixels=min(limits.pixels, settings.engine.max_pixels))
        self.indexes = {name: ServedIndex(name, place, engine, load) for name, place in indexes.items()}
        self.metrics = ServerMetrics()
        self.access = Access(settings)
        self.worker = ComputingThreads(limits.queue, settings.batch, settings.gather_ms / 1000, self.metrics)
        self.long_work = LongWork(limits.groupings, settings.kept_groupings)
        self.readers = ThreadPoolExecutor(READERS, "diffsim-reader")
        self.browsers = ThreadPoolExecutor(READERS, "diffsim-browser")
        self.thumbnails = ByteCache("thumbnails", settings.thumbnails, self.metrics)
        self.uploads = ByteCache("uploads", settings.uploads, self.metrics)
        self.fetcher = Fetcher(tuple(host.lower() for host in settings.url_hosts), limits.image_bytes)
        self._warm = [CallJob(index=index, deadline=float("inf"), work=self._load) for index in self._all()]
        self._side_by_side: list[bool] = []  # of the indexes whose models are loaded
        self._stopping = threading.Event()
        self._refresher = threading.Thread(target=self._refresh, name="diffsim-refresher", daemon=True)
        self._tell()

    def _all(self) -> Sequence[ServedIndex]:
        return list(self.indexes.values())

    def start(self) -> None:
        """Begin to work: load the models, and look for new generations."""
        self.worker.start()
        with self.worker.admitted(float("inf")) as ticket:
            self.worker.submit(ticket, self._warm)
        self._refresher.start()

    def _load(self, engine: Engine) -> None:
        """Load an index's models and vectors, and ask once, so that no person waits for what only a first search does.

        Once the models of all indexes compute side by side, more threads do.
        """
        engine.load()
        if len(engine) and engine.catalogue.encoders:
            engine.search(Image.new("RGB", (ASKED_FIRST, ASKED_FIRST)), k=1, rerank=False)
        self._side_by_side.append(engine.runs_side_by_side)
        if len(self._side_by_side) == len(self.indexes) and all(self._side_by_side):
            self.worker.start(side_by_side())

    def stop(self) -> None:
        """Answer everything that was accepted, and end."""
        self._stopping.set()
        self.long_work.close()
        self.worker.close()
        for pool in (self.readers, self.browsers):
            pool.shutdown()

    def not_ready(self) -> str:
        """Return why the server is not ready, as a sentence; empty: it is."""
        if self._stopping.is_set():
            return "the server is stopping"
        for job in self._warm:
            if not job.future.done():
                return "the models are being loaded"
            if error := job.future.exception():
                return str(error)
        return ""

    def index(self, name: str | None) -> ServedIndex:
        """Return an index by its name, by default the first; a NotFoundError lists the known ones."""
        if name is None:
            return self._all()[0]
        if name not in self.indexes:
            raise NotFoundError(f"no index is served as '{name}'; known: {', '.join(self.indexes)}")
        return self.indexes[name]

    def item(self, index: ServedIndex, number: int) -> Item:
        """Return an item by its id, or raise a NotFoundError."""
        item = index.engine.catalogue.item(number)
        if item is None:
            raise NotFoundError(f"{index.name} has no item with the id {number}")
        return item

    def grouping(self, index: ServedIndex, settings: DuplicateSettings | ClusterSettings) -> Piece:
        """Return the search for an index's duplicates or clusters, begun now unless it is known.

        Raises:
            LimitError: more items or neighbours than the server compares.
            BusyError: too many other searches of that kind.
        """
        limits, generation = self.settings.limits, index.engine.catalogue.generation
        check_limit("grouped", limits.grouped, len(index.engine), "looking for groups among {} items")
        check_limit("neighbours", limits.neighbours, settings.neighbours)

        def work(tell: OnProgress, cancel: Cancellation) -> Duplicates | Clusters:
            def group(engine: Engine) -> Duplicates | Clusters:
                reader = engine.catalogue.reader
                if isinstance(settings, DuplicateSettings):
                    return find_duplicates(reader, settings, tell, cancel)
                return find_clusters(reader, settings, tell, cancel)

            return index.use(group)

        return self.long_work.piece((index.name, generation, settings), work)

    def reader(self, parts: Sequence[bytes] = ()) -> QuestionReader:
        """Return a reader for the questions of one request with these files."""
        return QuestionReader(self.settings.limits, self.uploads, self.fetcher, parts)

    def deadline(self, asked_ms: int | None) -> float:
        """Return when a request that arrives now must be answered, as a time of :func:`time.monotonic`."""
        most = self.settings.limits.deadline_ms
        if asked_ms is not None:
            check_limit("deadline_ms", most, asked_ms)
        return time.monotonic() + (asked_ms or most) / 1000

    def keep(self, data: bytes) -> str:
        """Keep an uploaded image, and return its key: the SHA-256 of its bytes."""
        key = hashlib.sha256(data).hexdigest()
        self.uploads.put(key, data)
        return key

    def thumbnail(self, item: Item, side: int) -> bytes:
        """Return a JPEG of an item with ``side`` px at most; a GoneError if its file is not there as indexed."""
        return self.thumbnails.get_or_make((item.sha256, side), lambda: self._thumbnail(item, side))

    def _thumbnail(self, item: Item, side: int) -> bytes:
        try:
            return _as_jpeg(thumbnail(item, side, self.settings.limits.pixels))
        except ImageError as error:
            raise GoneError(str(error)) from error

    def upload_thumbnail(self, key: str, side: int) -> bytes:
        """Return a JPEG of an upload; a NotFoundError if the server no longer holds it."""
        data = held_upload(self.uploads, key)
        pixels = self.settings.limits.pixels
        return self.thumbnails.get_or_make((key, side), lambda: _as_jpeg(shrunk(data, UNNAMED, side, pixels)))

    def _refresh(self) -> None:
        """Look for new generations until the server stops."""
        looked = dict.fromkeys(self.indexes, time.monotonic())
        while not self._stopping.wait(self.settings.refresh_seconds):
            for index in self._all():
                if is_remote(index.place) and time.monotonic() - looked[index.name] < REMOTE_REFRESH_SECONDS:
                    continue
                looked[index.name] = time.monotonic()
                try:
                    index.refresh()
                except (DiffSimError, OSError) as error:
                    logger.warning("%s could not be looked at: %s", index.name, error)
            self._tell()

    def _tell(self) -> None:
        for index in self._all():
            self.metrics.generation.labels(index.name).set(index.engine.catalogue.generation)
            self.metrics.items.labels(index.name).set(len(index.engine))


def _as_jpeg(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=82)
    return buffer.getvalue()
