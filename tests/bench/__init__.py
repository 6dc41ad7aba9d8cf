"""Benchmarks, run by `make bench`: each compares what it measures within one run. No test depends on a time."""
