"""Bound the memory of several decoding threads: a decoder says how much it takes, and waits until there is room."""

import ctypes
import threading
from collections.abc import Callable
from functools import cache
from types import TracebackType

from PIL import Image

from retrieval.errors import ImageError
from retrieval.images.pixels import BAND_PIXELS

_FILE_SHARE = 4  # a quarter of the memory is for the bytes of files
_PIXEL_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "LA": 4, "La": 4}
_RGB_BYTES = 4  # of one pixel in Pillow's memory
_FULL_COEFFICIENTS = 6  # bytes a pixel: a progressive JPEG keeps all coefficients of the full image
# Bytes a pixel that a format's own library takes beside Pillow's image, by measurement; tests/images compares.
_LIBRARY_BYTES = {"WEBP": 12, "AVIF": 12, "HEIC": 12, "TIFF": 8, "GIF": 4}
_BAND_BYTES = 24  # a pixel of the band that is converted: its parts before and after each step


_WORTH_A_TRIM = 2**25  # bytes of a picture after which freed memory goes back to the system


@cache
def _trim() -> Callable[[int], int] | None:
    try:
        found: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # another C library than glibc
        return None
    return found


def _return_freed_memory() -> None:
    """Let the C library return what is free: glibc keeps a pool of pages for each thread, however many there are."""
    if trim := _trim():
        trim(0)


class Memory:
    """Memory that decoding threads share; each picture takes its part through a :class:`Room`."""

    def __init__(self, limit: int) -> None:
        """Take the bytes for all pictures together."""
        self.files = _Part(limit // _FILE_SHARE)
        self.pixels = _Part(limit - limit // _FILE_SHARE)

    def room(self) -> "Room":
        """Return the part of one picture, to be used in a ``with`` block."""
        return Room(self)


class _Part:
    """A number of bytes that threads take and give back."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken = 0
        self._changed = threading.Condition()

    def take(self, amount: int) -> None:
        """Wait until ``amount`` is free; more than there is at all waits until everything is free."""
        with self._changed:
            self._changed.wait_for(lambda: self.taken == 0 or self.taken + amount <= self.limit)
            self.taken += amount

    def give_back(self, amount: int) -> None:
        with self._changed:
            self.taken -= amount
            self._changed.notify_all()


class Room:
    """The memory of one picture, given back at the end of the ``with`` block.

    A thread takes room for a file first and for its pixels after that, from separate parts, so that threads which hold
    files never wait for each other.
    """

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._held: list[tuple[_Part, int]] = []

    def __enter__(self) -> "Room":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if sum(amount for _, amount in self._held) >= _WORTH_A_TRIM:
            _return_freed_memory()
        while self._held:
            part, amount = self._held.pop()
            part.give_back(amount)

    def take_file(self, size: int) -> None:
        """Wait for room for a file of ``size`` bytes."""
        self._take(self._memory.files, size)

    def take_pixels(self, amount: int, name: str) -> None:
        """Wait for room to decode a picture that takes ``amount`` bytes.

        Raises:
            ImageError: the picture takes more than all pictures may take together.
        """
        limit = self._memory.pixels.limit
        if amount > limit:
            needs = f"takes about {amount / 1e9:.1f} GB of memory to decode"
            raise ImageError("too_large", name, f"{needs}, more than the {limit / 1e9:.1f} GB that decoding may take")
        self._take(self._memory.pixels, amount)

    def _take(self, part: _Part, amount: int) -> None:
        part.take(amount)
        self._held.append((part, amount))


def decoding_bytes(kind: str, image: Image.Image, full_size: tuple[int, int]) -> int:
    """Estimate the most bytes that decoding an opened image and converting it to upright RGB take at a time."""
    pixels = image.width * image.height
    each = _PIXEL_BYTES.get(image.mode, 4) + 2 * _RGB_BYTES + _LIBRARY_BYTES.get(kind, 0)
    band = min(pixels, BAND_PIXELS) * _BAND_BYTES
    if kind == "JPEG" and image.info.get("progressive"):
        return pixels * each + band + full_size[0] * full_size[1] * _FULL_COEFFICIENTS
    return pixels * each + band
