"""From the fields of a request to the library's questions, within the server's limits."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from retrieval.images.decoding import DecodeRules
from retrieval.search.engine import Engine
from retrieval.search.queries.picture import ImageInput
from retrieval.search.queries.query import Query
from retrieval.search.queries.region import Box, Mask, RegionInput, Subject
from retrieval.serving.asking.fetching import Fetcher
from retrieval.serving.asking.request_models import AskedImage, ChoiceFields, ImageSource, QuestionFields
from retrieval.serving.errors import LimitError, NotFoundError, RequestError, TooLargeError
from retrieval.serving.indexes.byte_cache import ByteCache
from retrieval.settings import SearchSettings, ServerLimits


@dataclass(frozen=True)
class QuestionReader:
    """Reads the questions of one request: finds their images, and decodes them as the index was decoded."""

    limits: ServerLimits
    uploads: ByteCache
    fetcher: Fetcher
    parts: Sequence[bytes] = field(default=())  # files of a multipart request

    def choices(self, given: ChoiceFields, items: int) -> SearchSettings:
        """Return the settings of a search among so many items.

        Raises:
            LimitError: more than the server computes for one request.
            UsageError: choices that contradict each other.
        """
        settings = given.settings()
        check_limit("k", self.limits.k, settings.k)
        check_limit("candidates", self.limits.candidates, settings.candidates or 1)
        if settings.exhaustive:
            check_limit("exhaustive", self.limits.exhaustive, items, "an exhaustive search of {} items")
        return settings

    def read(self, engine: Engine, asked: QuestionFields) -> Query:
        """Return a question whose images are decoded.

        Raises:
            RequestError: an image that can't be had, or more images than the limit.
            ImageError, UsageError: an image or a region that can't be used.
        """
        check_limit("images", self.limits.images, len(asked.images) + len(asked.minus), "a question of {} images")
        check_limit("images", self.limits.images, len(asked.texts), "a question of {} texts")
        return engine.read_query(
            Query(
                [self.image(engine, each) for each in asked.images],
                _weights(asked.images),
                [self.image(engine, each) for each in asked.minus],
                _weights(asked.minus),
                asked.combine,
                [self._region(engine, each) for each in asked.images] if _has_region(asked.images) else None,
                asked.texts,
            )
        )

    def image(self, engine: Engine, source: ImageSource) -> ImageInput:
        """Return the picture that a source means: the path of a catalogued file, or bytes."""
        if source.id is not None:
            item = engine.catalogue.item(source.id)
            if item is None:
                raise NotFoundError(f"the index has no item with the id {source.id}")
            return Path(item.uri)
        data = self._bytes(source)
        if len(data) > self.limits.image_bytes:
            raise TooLargeError("image_bytes", self.limits.image_bytes, f"an image of {len(data)} bytes")
        return data

    def _bytes(self, source: ImageSource) -> bytes:
        if source.base64 is not None:
            return source.base64
        if source.upload is not None:
            return held_upload(self.uploads, source.upload)
        if source.part is not None:
            if source.part >= len(self.parts):
                raise RequestError(f"the request has {len(self.parts)} files, and none with the number {source.part}")
            return self.parts[source.part]
        return self.fetcher.fetch(source.url or "")

    def _region(self, engine: Engine, asked: AskedImage) -> RegionInput:
        if asked.subject:
            return Subject()
        if asked.box is not None:
            return Box(*asked.box)
        return None if asked.mask is None else Mask(self.image(engine, asked.mask))


def held_upload(uploads: ByteCache, key: str) -> bytes:
    """Return the bytes of an upload; a NotFoundError if the server no longer holds it."""
    held = uploads.get(key)
    if held is None:
        raise NotFoundError("the server no longer holds this upload: send the image again")
    return held


def check_limit(limit: str, most: int, asked: int, words: str = "") -> None:
    """Raise a LimitError if ``asked`` is more than ``most``; ``words`` have braces for the number."""
    if asked > most:
        raise LimitError(limit, most, words.format(asked) or f"{limit} = {asked}")


def decode_rules(limits: ServerLimits) -> DecodeRules:
    """Return the rules by which an upload is tried."""
    return DecodeRules(max_pixels=limits.pixels)


def _weights(images: Sequence[AskedImage]) -> list[float] | None:
    if all(image.weight is None for image in images):
        return None
    return [1.0 if image.weight is None else image.weight for image in images]


def _has_region(images: Sequence[AskedImage]) -> bool:
    return any(image.has_region for image in images)
