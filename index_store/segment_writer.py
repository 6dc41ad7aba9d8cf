"""Write one segment: catalogue, vectors and tensors of a group of images, durable before a generation names it."""

import json
from collections.abc import Iterable, Mapping, Sequence

from index_store.catalog_files.rows import ITEM_SCHEMA, REJECT_SCHEMA, Item, Reject, write_rows
from index_store.catalog_files.sources import Source, Sources
from index_store.checks.opening import exists_inside, make_folder
from index_store.codecs import DEFAULT_CODEC
from index_store.files import FileRecord, fsync_folder_of, fsync_tree, read_regular, write_file, writing
from index_store.garbage import remove_segment
from index_store.generation import AttentionRecord, SegmentRecord
from index_store.layout import SPARE, Layout, twin_of
from index_store.row_locations import write_ids
from index_store.segment_file import seal_segment
from index_store.tensors.attention import AttentionWriter, Tensors
from index_store.tensors.background_writer import BackgroundWriter
from index_store.vectors.storage import Vectors, write_vectors


class SegmentWriter:
    """Collect batches, then :meth:`finish`. Files have their final names, but count only once a commit names them."""

    def __init__(
        self,
        layout: Layout,
        name: str,
        codec: str = DEFAULT_CODEC,
        sources: Iterable[Source] = (),
        merges: int | None = None,
    ) -> None:
        """Create the segment's folder.

        Args:
            layout: of the index.
            name: of the segment; no other has it.
            codec: of its tensors.
            sources: of the index; paths below one of them are kept relative to it.
            merges: the number of items that a compaction writes into this and other segments together.
        """
        self._layout, self._name, self._codec, self._merges = layout, name, codec, merges
        self._sources = Sources(sources, layout.root)
        self._items: list[Item] = []
        self._rejects: list[Reject] = []
        self._moved: list[Item] = []
        self._filled: list[int] = []
        self._vectors: dict[str, list[Vectors]] = {}
        self._attention: dict[str, AttentionWriter] = {}
        self._files = BackgroundWriter()
        self._appending = False
        self._record: SegmentRecord | None = None
        with writing(layout.segment(name)):
            make_folder(layout.segment(name))

    def __len__(self) -> int:
        """Images so far, including rejected, moved and filled ones."""
        return len(self._items) + len(self._rejects) + len(self._moved) + len(self._filled)

    @property
    def items(self) -> int:
        """New items so far."""
        return len(self._items)

    @property
    def uris(self) -> list[str]:
        """The items' paths so far."""
        return [item.uri for item in self._items]

    @property
    def rejected_uris(self) -> list[str]:
        """The rejects' paths so far."""
        return [reject.uri for reject in self._rejects]

    @property
    def is_whole(self) -> bool:
        """Whether catalogue, vectors and tensors have the same rows: false after an append that was cut short."""
        return not self._appending

    def append(
        self,
        items: Sequence[Item],
        rejects: Sequence[Reject],
        vectors: Mapping[str, Vectors],
        tensors: Mapping[str, Tensors],
    ) -> None:
        """Append one batch.

        Args:
            items: one per usable image.
            rejects: the batch's unusable images.
            vectors: by encoder, float32 or float16 ``[len(items), dim]``.
            tensors: by the name to store them under, the codec's encoded arrays, ``[len(items), ...]`` each.
        """
        assert not self._filled
        self._appending = True
        self._append_rows(vectors, tensors)
        self._items.extend(items)
        self._rejects.extend(rejects)
        self._appending = False

    def fill(self, ids: Sequence[int], vectors: Mapping[str, Vectors], tensors: Mapping[str, Tensors]) -> None:
        """Append vectors and tensors that items of older segments are missing; arguments as in :meth:`append`.

        A filled segment has no items of its own, and every call has the same encoders and modes.
        """
        assert len(self) == len(self._filled)
        self._appending = True
        self._append_rows(vectors, tensors)
        self._filled.extend(ids)
        self._appending = False

    def _append_rows(self, vectors: Mapping[str, Vectors], tensors: Mapping[str, Tensors]) -> None:
        for mode, rows in tensors.items():
            if mode not in self._attention:
                path = self._layout.attention(mode, self._name)
                shapes = {name: array.shape[1:] for name, array in rows.items()}
                self._attention[mode] = AttentionWriter(path, shapes, self._codec, self._files)
            self._attention[mode].append(rows)
        for encoder, batch in vectors.items():
            self._vectors.setdefault(encoder, []).append(batch)

    def move(self, items: Sequence[Item]) -> None:
        """Give items of older segments new catalogue rows: another path for the same ids, vectors and tensors."""
        self._moved.extend(items)

    def finish(self) -> SegmentRecord:
        """Write the remaining rows, flush everything to the disk and return the record for a generation.

        After an interruption it can be called again; after a success it writes nothing more.
        """
        assert self.is_whole
        if self._record is None:
            self._record = self._write()
        return self._record

    def _write(self) -> SegmentRecord:
        layout, name = self._layout, self._name
        if self._filled:
            write_ids(layout.filled(name), self._filled)
        else:
            write_rows(layout.items(name), self._items, ITEM_SCHEMA, self._sources)
            write_rows(layout.rejects(name), self._rejects, REJECT_SCHEMA, self._sources)
        if self._moved:
            write_rows(layout.moved(name), self._moved, ITEM_SCHEMA, self._sources)
        for encoder, batches in self._vectors.items():
            write_vectors(layout.vectors(name, encoder), batches)
        attention = {mode: writer.close() for mode, writer in self._attention.items()}
        if attention:
            firsts = {mode: writer.firsts for mode, writer in self._attention.items()}
            write_file(layout.shards(name), json.dumps(firsts).encode())
        record, folder = self._describe(attention), layout.segment(name)
        with writing(folder):
            for tree in (folder, *(layout.attention(mode, name) for mode in attention)):
                fsync_tree(tree)
                while tree.parent != layout.root:  # which the commit flushes
                    fsync_folder_of(tree)
                    tree = tree.parent
        return record

    def _describe(self, attention: Mapping[str, AttentionRecord]) -> SegmentRecord:
        """Write the second copies and ``segment.json``, and return the record of all files."""
        layout, name, folder = self._layout, self._name, self._layout.segment(self._name)
        small = (layout.items, layout.rejects, layout.moved, layout.filled, layout.shards)
        copied = [path for path in (of(name) for of in small) if exists_inside(path)]
        vectors = [layout.vectors(name, encoder) for encoder in self._vectors]
        files = {path.relative_to(folder).as_posix(): FileRecord.of(path) for path in (*copied, *vectors)}
        files |= {twin_of(path.name): files[path.name] for path in copied}
        counts = len(self._items), len(self._rejects)
        record = SegmentRecord(name, *counts, files, attention, len(self._moved), len(self._filled))
        spare = folder / SPARE
        for path in copied:
            write_file(spare / path.name, read_regular(path))
        next_id = 1 + max((item.id for item in self._items), default=-1)
        return seal_segment(layout, record, next_id, self._merges)

    def discard(self, even_finished: bool = False) -> None:
        """Remove the segment's files, best effort: the next writer clears the rest.

        A finished segment stays, because a generation may name it, unless ``even_finished`` says that none does.
        """
        if self._record is None or even_finished:
            self._files.drop()
            remove_segment(self._layout, self._name)
