"""Benchmarks of single models."""
