"""Attention tensors on disk: Zarr groups, shards, projections, and the cache of computed ones."""
