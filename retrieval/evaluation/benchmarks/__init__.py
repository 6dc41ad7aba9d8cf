"""Benchmarks: their loaders and published numbers."""
