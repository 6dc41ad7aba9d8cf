"""Descriptions of an index, as JSON values."""

from collections import Counter
from typing import Any

from index_store.disk_usage import bytes_of_groups, bytes_on_disk
from index_store.reader import IndexReader
from index_store.remote.mirror import index_name
from index_store.tensors.cache import cache_size
from retrieval.encoding.recipe import Recipe
from retrieval.encoding.stored_tensors import coverage
from retrieval.models.modes import Target
from retrieval.models.registry import describe_extractor
from retrieval.search.index_percentiles import describe_percentiles

_BESIDE = "catalog and vectors"  # the kind of bytes beside the tensors


def about_index(reader: IndexReader, recipe: Recipe) -> dict[str, Any]:
    """Return the part that stands in every result."""
    generation = reader.generation
    return {
        "path": index_name(reader.layout.root),
        "model": recipe.settings.model,
        "items": len(reader),
        "generation": generation.number,
    }


def describe_index(reader: IndexReader, recipe: Recipe) -> dict[str, Any]:
    """Return the whole description: settings, modes, segments, rejects, coverage, sizes and the fingerprint."""
    generation, rejects = reader.generation, reader.rejects()
    return {
        "schema": 1,
        **about_index(reader, recipe),
        "created": generation.created,
        "created_by": generation.created_by,
        "format_version": generation.format_version,
        "codec": recipe.settings.codec,
        "modes": {
            mode: {
                "layer": t.layer,
                **_noise(t, describe_extractor(recipe.settings.model).last_step),
                "stored_as": recipe.tensors[mode],
            }
            for mode, t in recipe.targets.items()
        },
        "encoders": list(generation.encoders),
        "sources": list(reader.sources.places),
        "segments": len(generation.segments),
        "removed": len(generation.tombstones),
        "rejected": dict(Counter(reject.reason for reject in rejects)),
        "rejects": [{"path": r.uri, "reason": r.reason, "detail": r.detail} for r in rejects],
        "attention": recipe.attention,
        "coverage": coverage(reader),
        "percentiles": describe_percentiles(reader),
        **_sizes(reader),
        "cache": dict(zip(("tensors", "bytes"), cache_size(reader.layout), strict=True)),
        "fingerprint": dict(generation.fingerprint),
    }


def _noise(target: Target, last_step: int) -> dict[str, int | None]:
    """Return both numbers of a target's noise level; None for a model that adds no noise."""
    if not target.timestep:
        return {"timestep": None, "denoising_step": None}
    return {"timestep": last_step - target.denoising_step, "denoising_step": target.denoising_step}


def _sizes(reader: IndexReader) -> dict[str, Any]:
    """Return the bytes on the disk by kind and in total, those of one image, and those that nothing uses any more."""
    generation, held = reader.generation, coverage(reader)
    groups = {mode: bytes_of_groups(reader.layout, mode) for mode in generation.stored_names}
    on_disk = bytes_on_disk(reader.layout, ()) | {mode: sum(found.values()) for mode, found in groups.items()}
    filled = {mode: [s for s in generation.segments if mode in s.attention] for mode in generation.stored_names}
    rows = {mode: sum(segment.data_rows for segment in segments) for mode, segments in filled.items()}
    in_use = {
        mode: sum(groups[mode].get(reader.layout.attention(mode, segment.name).name, 0) for segment in segments)
        for mode, segments in filled.items()
    }
    rows[_BESIDE], held[_BESIDE] = sum(segment.rows for segment in generation.segments), len(reader)
    files = sum(file.size for segment in generation.segments for file in segment.files.values())
    each = {mode: size / max(1, rows[mode]) for mode, size in in_use.items()}
    each[_BESIDE] = files / max(1, rows[_BESIDE])
    # Where every stored row is in use, the difference is overhead of the files.
    unused = [on_disk[kind] - held[kind] * each[kind] for kind in each if generation.retired or rows[kind] > held[kind]]
    return {
        "bytes": {**on_disk, "total": sum(on_disk.values())},
        "bytes_per_image": {kind: round(size) for kind, size in each.items()},
        "unused_bytes": round(sum(max(0.0, size) for size in unused)),
    }
