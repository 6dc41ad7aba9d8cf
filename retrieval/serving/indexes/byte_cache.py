"""A cache of bytes by key within a budget; the least recently used leave first."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

from retrieval.serving.metrics import ServerMetrics


class ByteCache:
    """Bytes in memory, safe in many threads. Threads that miss the same key at once make its value once."""

    def __init__(self, name: str, budget: int, metrics: ServerMetrics) -> None:
        self._budget = budget
        self._held: OrderedDict[Hashable, bytes] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self._making: dict[Hashable, threading.Lock] = {}
        self._looked = {found: metrics.cache.labels(name, str(found).lower()) for found in (True, False)}
        self._size = metrics.cache_bytes.labels(name)

    def get(self, key: Hashable) -> bytes | None:
        """Return the value of ``key``; None: there is none, or it has left."""
        with self._lock:
            value = self._held.get(key)
            if value is not None:
                self._held.move_to_end(key)
        self._looked[value is not None].inc()
        return value

    def put(self, key: Hashable, value: bytes) -> None:
        """Keep a value; it is not kept if it alone is larger than the budget."""
        with self._lock:
            self._bytes -= len(self._held.pop(key, b""))
            if len(value) <= self._budget:
                self._held[key] = value
                self._bytes += len(value)
            while self._bytes > self._budget:
                self._bytes -= len(self._held.popitem(last=False)[1])
            self._size.set(self._bytes)

    def get_or_make(self, key: Hashable, make: Callable[[], bytes]) -> bytes:
        """Return the value of ``key``, made now if it is not there."""
        if (value := self.get(key)) is not None:
            return value
        with self._lock:
            making = self._making.setdefault(key, threading.Lock())
        with making:
            try:
                with self._lock:
                    value = self._held.get(key)
                if value is None:
                    value = make()
                    self.put(key, value)
                return value
            finally:
                with self._lock:
                    self._making.pop(key, None)
