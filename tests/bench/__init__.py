"""Benchmarks, run by `make bench`: ratios measured in one run, never part of the timed tests."""
